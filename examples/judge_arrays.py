"""Judge numbers that you have already: final accuracies of three settings, each trained with the same five seeds."""

import numpy as np

import fairtrial as ft

baseline = np.array([0.912, 0.918, 0.909, 0.921, 0.914])
settings = {
    "low_beta2": np.array([0.903, 0.907, 0.901, 0.910, 0.905]),
    "large_eps": np.array([0.913, 0.917, 0.910, 0.920, 0.915]),
}

# One row a seed, one column a setting: setting minus baseline. Differences within one point do not matter here.
differences = np.stack([values - baseline for values in settings.values()], axis=1)
for comparison in ft.judge(differences, margin=0.01, arms=list(settings)):
    low, high = comparison.interval
    print(f"{comparison.arm}: {comparison.verdict} ({comparison.mean_difference:+.4f}, 95% {low:+.4f} to {high:+.4f})")
