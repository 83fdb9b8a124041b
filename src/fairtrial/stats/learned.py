"""Tells runs that learned from runs that did not, by the floor that a study set (`lost_below`, `lost_above`).

``lost_below = "chance"`` is a floor a little above the accuracy of guessing: one and a half times that, but at most 5
points more. With ten equal classes it is 15%, with two 55%. fairtrial's own loop knows the number of classes;
a user's loop records the accuracy of guessing as the metric ``chance``.
"""

from fairtrial.measures import measure
from fairtrial.spec import BUILT_IN, Settings, Study
from fairtrial.trial import TrialResult

#: The metric in which a user's loop records the accuracy of guessing.
CHANCE = "chance"


def above_chance(chance: float) -> float:
    """The accuracy below which a run is at chance level.

    Example:
        >>> round(above_chance(0.1), 3), round(above_chance(0.5), 3)
        (0.15, 0.55)
    """
    return min(1.5 * chance, chance + 0.05)


def learned(study: Study, settings: Settings, trial: TrialResult) -> bool | None:
    """Tell whether a finished trial learned, by the study's own measure and floor.

    True without a floor. None if the trial did not record what is needed to tell.
    """
    evidence = study.evidence
    if evidence.lost_below is None and evidence.lost_above is None:
        return True
    value = measure(evidence.metric, evidence.direction).of(trial.epochs, evidence.target)
    if evidence.lost_above is not None:
        return None if value is None else value <= evidence.lost_above
    floor = _chance(settings, trial) if evidence.lost_below == "chance" else evidence.lost_below
    return None if value is None or floor is None else value >= floor


def _chance(settings: Settings, trial: TrialResult) -> float | None:
    """The floor at chance level; None if a user's loop did not record it."""
    if settings.training.loop == BUILT_IN:
        classes = settings.data.class_count
        return above_chance(1 / classes) if classes else None
    recorded = [record.metrics[CHANCE] for record in trial.epochs if CHANCE in record.metrics]
    return above_chance(recorded[-1]) if recorded else None
