"""Datasets and Lightning data modules: they know the disk, the order and the batches; samples are plain dicts."""
