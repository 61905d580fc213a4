"""Evaluation on the test beats: baselines, costs and the verdict."""
