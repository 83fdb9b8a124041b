"""How a measure depends on a setting, as people and programs read it."""

import json
import re
from dataclasses import replace

from fairtrial.results import StudyResults
from fairtrial.spec import Study
from fairtrial.testing import simulated_results
from fairtrial.trial import Outcome

#: Five means on a grid; the reference is the fourth.
TABLE = {
    "name": "means",
    "reference": "default",
    "seeds": 6,
    "params": {"mean": 0.8, "noise_sd": 0.002},
    "training": {"loop": "fairtrial.testing:simulate", "epochs": 2},
    "evidence": {"margin": 0.02},
    "arms": {"default": {}},
    "grid": {"params": {"mean": [0.7, 0.75, 0.79, 0.81]}},
}


def verdict(**changes):
    study = Study.from_dict(TABLE | changes)
    return StudyResults(study, simulated_results(study)).verdict()


def test_a_setting_is_a_sentence_below_the_verdicts():
    said = verdict().markdown()
    assert re.search(
        r"mean from 0\.7 to 0\.81: best and worst differ by \d+\.\d\d to \d+\.\d\d points; worse at 0\.7 to 0\.75; "
        r"equivalent at 0\.79 to 0\.81; the best is 0\.81, or beyond",
        said,
    )
    assert "hold with the same 95% probability" in " ".join(said.split())


def test_a_range_that_may_be_nothing_is_said_so():
    said = verdict(grid={"params": {"mean": [0.8, 0.8001, 0.8002]}}).text(120)
    assert re.search(r"mean from 0\.8 to 0\.8002: best and worst differ by at most \d\.\d\d points", said)


def test_lost_trials_are_named_with_their_value_and_without_intervals_there_is_no_curve():
    study = Study.from_dict(TABLE)
    results = [
        replace(one, epochs=(), outcome=Outcome.DIVERGED) if (one.arm, one.seed) == ("mean_0p75", 1) else one
        for one in simulated_results(study)
    ]
    said = StudyResults(study, tuple(results)).verdict().text(120)
    assert "worse at 0.7; worse (1 diverged) at 0.75; equivalent at" in " ".join(said.split())
    assert "fewer than three values have an interval, so there is no curve" in verdict(seeds=1, evidence={}).text(160)


def test_json_has_levels_and_the_curve():
    table = json.loads(verdict().json())
    (mean,) = table["sensitivity"]
    assert (mean["setting"], mean["scale"], mean["best"]) == ("params.mean", "linear", [0.81])
    assert [level["value"] for level in mean["levels"]] == [0.7, 0.75, 0.79, 0.8, 0.81]
    assert len(mean["curve"]["values"]) == len(mean["curve"]["low"])
    assert "sensitivity" not in json.loads(
        verdict(grid={"params": {"mean": [0.7, 0.75]}}, reference="mean_0p7", arms={}).json()
    )


def test_an_integer_and_the_same_fraction_are_two_arms_of_which_there_is_no_curve():
    one_and_one = {"default": {}, "integer": {"params": {"mean": 1}}, "fraction": {"params": {"mean": 1.0}}}
    shown = verdict(arms=one_and_one, grid={"params": {"mean": [0.7, 0.75]}})
    assert "two arms have 1, as an integer and as a fraction, so there is no curve" in shown.text(200)
    (mean,) = json.loads(shown.json())["sensitivity"]
    assert [level["arm"] for level in mean["levels"][-2:]] == ["fraction", "integer"]
    assert (mean["curve"], mean["scale"]) == (None, "linear")
    (plain,) = json.loads(verdict().json())["sensitivity"]
    assert plain["curve"]


def test_an_arm_may_differ_from_the_reference_in_how_a_number_is_written():
    """A loop may tell 1 from 1.0, as scikit-learn's max_features does."""
    params = {"mean": 1, "noise_sd": 0.002}
    arms = {"default": {}, "fraction": {"params": {"mean": 1.0}}}
    study = Study.from_dict(TABLE | {"params": params, "arms": arms})
    assert study.differing_keys("default", "fraction") == ("params.mean",)
    (mean,) = json.loads(StudyResults(study, simulated_results(study)).verdict().json())["sensitivity"]
    assert [level["arm"] for level in mean["levels"] if level["value"] == 1] == ["default", "fraction"]
