"""Where trials run: one small contract, and executors that keep it."""
