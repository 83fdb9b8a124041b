"""Optimizers: one module each, with its settings and what they build."""
