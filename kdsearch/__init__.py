"""Hyperparameter search for knowledge-distilled anomaly detectors."""

__version__ = "0.1.0"
