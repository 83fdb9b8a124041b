"""Frozen results in, documents out: tables, figures, exports, progress."""
