"""The protocol of methods, code that methods share, and the two built-in methods."""
