"""The method ``memory``: stored normal beats, and small networks that learn its scores."""

from kdsearch.methods.memory.method import Memory

__all__ = ["Memory"]
