"""A student that a user takes away: loading, scoring, pictures, export."""
