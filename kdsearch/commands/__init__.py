"""The commands, a module each: what it takes, what it does with it, what it prints."""
