"""Atomic files, locally or in a bucket, and the user's cache."""
