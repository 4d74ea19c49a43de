"""Windows on images: where they lie, what is in them, and which of them overlap."""
