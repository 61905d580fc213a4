"""The run folder, its trials, and the study of them."""
