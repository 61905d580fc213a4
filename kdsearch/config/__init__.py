"""The space file: validation, schema and reference."""
