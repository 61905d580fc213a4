"""A student at work: scoring recordings and files, drawing what it flags, exporting it."""
