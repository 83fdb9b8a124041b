"""Run trials: a contract, and the executors that fulfill it."""
