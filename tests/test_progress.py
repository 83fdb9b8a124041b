"""Progress of computations: told to the last step, and to nobody who did not ask."""

import numpy as np
import pytest

from fairtrial.progress import report, shown_by, steps
from fairtrial.stats import boundary
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.replay import replayed
from fairtrial.testing import simulated_results, simulated_study


def told(function, *args):
    seen = []
    with shown_by(lambda *step: seen.append(step)):
        function(*args)
    return seen


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda: boundary.solve(LookPlan.of(2, [3, 5]), 3_000), "critical values"),
        (lambda: replayed(STUDY, RESULTS), "looks"),
        (lambda: list(steps("abc", "arms")), "arms"),
    ],
)
def test_every_long_computation_tells_its_steps_up_to_the_last(function, what):
    seen = told(function)
    done, totals, names = zip(*seen, strict=True)
    assert {*names} == {what}
    assert len({*totals}) == 1
    assert (np.diff(done) >= 0).all()
    assert done[-1] == totals[-1] > 1
    assert len(done) > 2


STUDY = simulated_study({"a": {}, "b": {"mean": 0.9}}, seeds={"min": 3, "max": 8})
RESULTS = simulated_results(STUDY)


def test_outside_the_context_nobody_is_told():
    seen = told(lambda: None)
    report(1, 2, "levels")
    assert seen == []


def test_the_innermost_context_is_told():
    assert told(lambda: told(report, 1, 2, "levels")) == []
