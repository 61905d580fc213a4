"""The run folder, the trials in it, and the study of them."""
