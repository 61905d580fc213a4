"""The search on Ray Tune, which runs what the study asks for."""
