"""Checks a study's training loop: trains a little of each arm, and says whether its results could be trusted."""
