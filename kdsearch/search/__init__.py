"""The search: Ray Tune runs what the study asks for."""
