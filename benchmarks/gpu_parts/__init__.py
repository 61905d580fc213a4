"""The parts of `gpu.py`, one module each or two that measure the same; `__main__` runs them."""
