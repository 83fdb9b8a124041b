"""Runs trials as tasks of a Ray cluster."""
