"""Networks that studies can name."""
