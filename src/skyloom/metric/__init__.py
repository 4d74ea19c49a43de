"""Measures of features, selections and detections as plain functions."""
