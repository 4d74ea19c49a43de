"""Probes: how much of given labels a network's features tell, measured on cutouts that it did not learn them from."""
