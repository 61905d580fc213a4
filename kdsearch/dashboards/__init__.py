"""Runs as other programs show them: optuna-dashboard and TensorBoard."""
