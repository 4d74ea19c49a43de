"""Masks in every written form: run lengths, outlines, and small masks at places of large images."""
