"""Trials for tests that need one, and no study."""

from fairtrial.scheduler import plan
from fairtrial.spec import Study


def some_trial(*, epochs=3, **sections):
    """The first trial of a study with one arm."""
    training = {"epochs": epochs, "batch_size": 32} | sections.pop("training", {})
    return plan(Study.from_dict({"name": "s", "reference": "a", "arms": {"a": {}}, "training": training} | sections))[0]
