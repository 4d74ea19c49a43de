"""Simulated surveys: a sky of sources, drawn into images and tables in the layout of the true survey."""
