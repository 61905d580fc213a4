"""A memory of normal beats, and small networks that learn to score as it does."""

from kdsearch.methods.memory.method import Memory

__all__ = ["Memory"]
