"""Tables, figures and the report, all derived from a run folder."""
