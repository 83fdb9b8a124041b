"""Small runs that the tests of importers log with real libraries, and expect to find again.

Two optimizers, five seeds, three epochs. Their numbers come from here alone, so tests need no importer to know them.
"""

import random

OPTIMIZERS = ("adam", "sgd")
SEEDS = range(5)
EPOCHS = range(3)
LEARNING_RATE = {"adam": 0.001, "sgd": 0.1}


def runs():
    """Each optimizer at each seed."""
    return [(optimizer, seed) for optimizer in OPTIMIZERS for seed in SEEDS]


def test_acc(optimizer, seed, epoch):
    """The accuracy after an epoch: seeds have something in common, and SGD is two points worse."""
    common, own = random.Random(f"seed {seed}"), random.Random(f"{optimizer} {seed} {epoch}")
    value = 0.7 + 0.05 * epoch + 0.02 * common.random() + 0.01 * own.random() - 0.02 * (optimizer == "sgd")
    return round(value, 4)


test_acc.__test__ = False


def train_loss(optimizer, seed, epoch):
    return round(1 - test_acc(optimizer, seed, epoch), 4)


def final_values(optimizer):
    """What a verdict on the final accuracy compares: one number for each seed."""
    return [test_acc(optimizer, seed, EPOCHS[-1]) for seed in SEEDS]


def best_values(optimizer):
    return [max(test_acc(optimizer, seed, epoch) for epoch in EPOCHS) for seed in SEEDS]
