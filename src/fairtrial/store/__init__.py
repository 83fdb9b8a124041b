"""Where records stay: one small contract, and stores that keep it."""
