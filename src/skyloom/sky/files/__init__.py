"""Files of images and tables: found, fetched, and opened as lazy pixels."""
