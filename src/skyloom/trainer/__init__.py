"""Fitting: the function behind train.py, its checkpoints, its record of metrics and its loggers."""
