"""Reports: each measures and draws, and writes numbers as JSON, plots as PNG and one HTML page for people."""
