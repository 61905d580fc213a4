"""Scripts that measure what the pages of results say; each writes one small table."""
