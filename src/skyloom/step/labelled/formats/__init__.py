"""Published layouts of labelled images: a module is a format, and holds one function of its name that takes a path."""
