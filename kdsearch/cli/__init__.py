"""The commands, a module each: arguments, call, print."""
