"""Use of a trained student: loading, scoring, pictures, export."""
