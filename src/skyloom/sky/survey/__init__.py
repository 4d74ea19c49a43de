"""What is known of a survey: its files, units, bands and columns."""
