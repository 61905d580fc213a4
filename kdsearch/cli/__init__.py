"""The commands, one module each: parse arguments, call, print."""
