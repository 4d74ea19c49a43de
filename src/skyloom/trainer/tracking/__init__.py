"""Loggers beside metrics.csv: Weights & Biases and MLflow, and what they are told."""
