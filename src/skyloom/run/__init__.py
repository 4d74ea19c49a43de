"""The only package that knows Hydra: composes configurations and calls the plain functions behind the four verbs."""
