"""Tunes the settings of each arm before arms are compared: proposals, rounds of tuning trials, the best of them."""

from fairtrial.tuning.rounds import tune, tuning_trials_ended

__all__ = ["tune", "tuning_trials_ended"]
