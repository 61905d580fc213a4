"""Tables, figures and the report, computed from a run folder."""
