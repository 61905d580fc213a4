"""Scripts that measure what `docs/results.md` says; each writes one small table."""
