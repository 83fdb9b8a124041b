"""Initial weights that are not drawn from the seed: files, and what is published under a name."""
