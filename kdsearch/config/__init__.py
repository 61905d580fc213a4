"""The space file: checked once, frozen from then on; its schema and its reference."""
