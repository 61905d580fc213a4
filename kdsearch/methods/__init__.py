"""The protocol that a method keeps, what methods share, and the two built-in ones."""
