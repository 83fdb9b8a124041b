"""Training loops of users, for tests: quick, deterministic, and with every way to end."""

import math
import os
import signal

from fairtrial import Diverged


def good(trial):
    """Learn a little in each epoch, by a rule of arm and seed."""
    pace = trial.settings.params.get("pace", 1)
    for epoch in range(1, trial.epochs + 1):
        trial.progress(1, 2, train_acc=0.5)
        acc = 1 - math.exp(-pace * epoch / 5) + trial.seed / 100
        yield {
            "train_loss": 2 / (pace * epoch),
            "train_acc": acc,
            "test_loss": 2.5 / (pace * epoch),
            "test_acc": acc - 0.1,
            "train_seconds": 2.0,
            "eval_seconds": 0.5,
            "grad_norm": 1.0 / epoch,
        }


def mixed(trial):
    """Behave as the arm's parameter `end` says, in the second epoch."""
    for epoch, metrics in enumerate(good(trial), start=1):
        end = trial.settings.params["end"] if epoch == 2 else "well"
        if end == "nan":
            metrics["train_loss"] = math.nan
        if end == "inf":
            metrics["test_loss"] = math.inf
        if end == "says so":
            raise Diverged("weights exploded in epoch 2")
        if end == "raises":
            raise RuntimeError("boom")
        if end == "no record":
            yield 3.0
        if end == "interrupt" and "FAIRTRIAL_TEST_INTERRUPT" in os.environ:
            signal.raise_signal(signal.SIGINT)
        yield metrics


not_callable = 3
