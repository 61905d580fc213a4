"""Code that runs in Ray's worker processes."""
