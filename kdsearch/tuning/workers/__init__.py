"""What runs in Ray's worker processes."""
