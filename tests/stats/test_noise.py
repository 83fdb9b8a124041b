"""Where the noise comes from, read off the grid that a study lays out."""

import numpy as np
import pytest

from builders import make_results, make_study
from fairtrial.stats.components import noise_components
from fairtrial.stats.noise import split_noise
from fairtrial.testing import simulated_results, simulated_study

GRID = {"initial_weights": 3, "batch_orders": 4}


def test_a_plain_study_splits_nothing():
    study = make_study(("a", "b"))
    assert split_noise(study, make_results(study)) == ()


def test_runs_find_their_place_on_the_grid():
    study = simulated_study({"a": {}, "b": {}}, seeds=None, noise=GRID)
    results = simulated_results(study)
    grid = np.empty((3, 4))
    for result in results:
        if result.arm == "b":
            grid[study.noise.of(result.seed)] = result.epochs[-1].metrics["test_acc"]
    second = split_noise(study, results)[1]
    assert (second.arm, second.runs, second.left_out) == ("b", 12, 0)
    assert second.components == noise_components(grid)


def test_a_hole_costs_the_row_or_column_that_is_shorter():
    study = simulated_study({"a": {"diverge_seeds": [5]}}, seeds=None, noise=GRID)
    (arm,) = split_noise(study, simulated_results(study))
    assert (arm.runs, arm.left_out) == (9, 2)


def test_one_source_alone():
    study = simulated_study({"a": {}}, seeds=5, noise={"batch_orders": 1})
    (arm,) = split_noise(study, simulated_results(study))
    assert arm.components.order is None
    assert arm.components.init.share == 1.0


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_runs_have_nothing_to_split(count):
    study = simulated_study({"a": {}}, seeds=None, noise=GRID)
    (arm,) = split_noise(study, simulated_results(study)[:count])
    assert (arm.components, arm.runs, arm.left_out) == (None, 0, count)
