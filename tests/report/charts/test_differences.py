"""The picture behind the verdicts: its numbers are theirs, and the drawing shows them all."""

import json
from dataclasses import replace

import pytest

from fairtrial.errors import ReportError
from fairtrial.report.charts import draw
from fairtrial.report.charts.differences import difference_data, draw_differences
from fairtrial.stats.comparison import compare
from fairtrial.testing import simulated_results, simulated_study

ARMS = {"ref": {}, "low": {"mean": 0.7}, "near": {"mean": 0.801}, "half": {"mean": 0.7, "diverge_seeds": [1]}}


def make(arms=ARMS, seeds=5, **sections):
    study = simulated_study(arms, seeds=seeds, **sections)
    return study, simulated_results(study)


def layers(study, results):
    """The rows of each layer by the kind of its mark, and the whole specification."""
    (figure,) = draw(["differences"], study, results)
    whole = figure.chart.to_dict()
    rows = [(layer["mark"]["type"], json.loads(whole["datasets"][layer["data"]["name"]])) for layer in whole["layer"]]
    return rows, whole


def test_the_numbers_are_those_of_the_verdicts():
    study, results = make()
    data, found = difference_data(study, results), compare(study, results)
    values = {(one.arm, one.seed): max(record.metrics["test_acc"] for record in one.epochs) for one in results}
    for arm, row in zip(data.arms, found.comparisons, strict=True):
        assert (arm.arm, arm.mean, arm.interval, arm.verdict) == (
            row.arm,
            row.mean_difference,
            row.interval,
            row.verdict.value,
        )
        assert len(arm.by_seed) == row.seeds
        for seed, difference in arm.by_seed.items():
            assert difference == pytest.approx(values[arm.arm, seed] - values["ref", seed])
    assert [arm.arm for arm in data.arms] == ["low", "near", "half"]
    assert 1 not in data.arms[2].by_seed
    assert data.arms[2].lost == ("1 diverged",)


def test_an_arm_that_settled_early_shows_the_seeds_of_its_verdict():
    study, results = make({"ref": {}, "low": {"mean": 0.5}, "near": {}}, seeds={"min": 3, "max": 6})
    low = difference_data(study, results).arms[0]
    assert (low.verdict, list(low.by_seed)) == ("worse", [0, 1, 2])


def test_every_number_is_drawn_in_points():
    study, results = make(evidence={"margin": 0.02})
    (band, zero, bars, seeds, means, words), whole = layers(study, results)
    assert band == ("rect", [{"x": -2.0, "end": 2.0}])
    assert zero == ("rule", [{"x": 0.0}])
    data = difference_data(study, results)
    assert [row["x"] for row in seeds[1]] == pytest.approx([100 * v for arm in data.arms for v in arm.by_seed.values()])
    assert [row["x"] for row in means[1]] == pytest.approx([100 * arm.mean for arm in data.arms])
    assert [row["low"] for row in bars[1]] == pytest.approx([100 * arm.interval[0] for arm in data.arms])
    low, high = whole["layer"][2]["encoding"]["x"].get("scale", whole["layer"][0]["encoding"]["x"]["scale"])["domain"]
    assert all(low < row["low"] < row["high"] < high for row in bars[1])
    assert {row["arm"]: row["words"] for row in words[1]} == {
        "low": "worse",
        "near": "equivalent",
        "half": "worse; 1 diverged",
    }
    assert "within 2.00 points" in whole["title"]["subtitle"][1]


def subtitle(found, study, results):
    data = replace(difference_data(study, results), found=found)
    return draw_differences(study, data).to_dict()["title"]["subtitle"]


def test_the_subtitle_says_what_the_first_line_of_the_verdicts_does():
    study, results = make(evidence={"margin": 0.02})
    found = replace(difference_data(study, results).found, set_beforehand=True)
    assert subtitle(found, study, results)[1].endswith("within 2.00 points, the margin that the study set beforehand.")
    late = replace(found, set_beforehand=False, exploratory=("the margin 0.02 was set after 20 trials had ended",))
    first, _, last = subtitle(late, study, results)
    assert (first, "beforehand" in last) == ("Exploratory.", False)
    alert = "Not one experiment: loop.py changed between trials " + ", then seed 1" * 20
    first, second, _, last = subtitle(replace(late, alerts=(alert, "Another.")), study, results)
    assert first.startswith("Exploratory. Not one experiment: loop.py changed")
    assert second.endswith(" ...")
    assert max(len(first), len(second)) <= 110


def test_without_a_margin_there_is_no_band_and_without_spread_no_bar():
    (zero, bars, *_), whole = layers(*make({"ref": {}, "low": {"mean": 0.7}}, seeds=1))
    assert (zero[0], bars) == ("rule", ("rule", []))
    assert "no spread" in whole["title"]["subtitle"][0]
    assert whole["title"]["subtitle"][1] == "Higher is better."


def test_of_a_loss_lower_is_better():
    _, whole = layers(*make(evidence={"metric": "final_train_loss"}))
    assert whole["title"]["subtitle"][1] == "Lower is better."
    assert whole["layer"][0]["encoding"]["x"]["title"] == "Arm minus ref"


def test_a_refused_arm_has_no_numbers_and_says_so():
    study, results = make()
    results[-1].fingerprints["batch_order"] = "another"
    arm = difference_data(study, results).arms[-1]
    assert (arm.verdict, arm.mean, arm.by_seed) == ("refused", None, {})


@pytest.mark.parametrize("arms", [{"ref": {}}, {"ref": {}, "dead": {"diverge_rate": 1.0}}])
def test_without_a_pair_there_is_nothing_to_draw(arms):
    with pytest.raises(ReportError, match="no arm has a seed at which it and ref have a result"):
        difference_data(*make(arms))


def test_of_unpaired_runs_each_is_drawn_minus_the_mean_of_the_references():
    study, results = make(evidence={"paired": False})
    values = {(one.arm, one.seed): max(record.metrics["test_acc"] for record in one.epochs) for one in results}
    mean = sum(values["ref", seed] for seed in range(5)) / 5
    low = difference_data(study, results).arms[0]
    assert low.by_seed == pytest.approx({seed: values["low", seed] - mean for seed in range(5)})
    assert sum(low.by_seed.values()) / 5 == pytest.approx(low.mean)
    assert "Small circles: one run each, minus the mean." in json.dumps(layers(study, results)[1]["title"])
    with pytest.raises(ReportError, match="no run of ref, or none of another arm, has a result"):
        difference_data(*make({"ref": {}, "dead": {"diverge_rate": 1.0}}, evidence={"paired": False}))
