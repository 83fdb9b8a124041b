"""Sensitivity curves: all that the verdicts say is drawn, on the setting's own scale."""

import json
from dataclasses import replace

import pytest

from fairtrial.errors import ReportError
from fairtrial.report.chart_options import ChartOptions
from fairtrial.report.charts import draw
from fairtrial.report.charts.sensitivity import sensitivity_data
from fairtrial.report.style import VERDICT_SHAPES, config
from fairtrial.spec import Study
from fairtrial.stats.comparison import compare
from fairtrial.stats.verdicts import Verdict
from fairtrial.testing import simulated_results
from fairtrial.trial import Outcome

BETAS = {"beta2": [0.9, 0.99, 0.9999]}


def make(grid=None, seeds=4, **more):
    table = {"name": "s", "reference": "default", "seeds": seeds, "arms": {"default": {}}, **more}
    table["training"] = {"loop": "fairtrial.testing:simulate", "epochs": 1}
    grid = {"design": "one_at_a_time", "optimizer": BETAS | {"eps": [1e-10, 1e-6, 1e-4]}} if grid is None else grid
    study = Study.from_dict(table | {"grid": grid})
    return study, list(simulated_results(study))


def panels(study, results):
    """The layers of each panel as kind of mark and rows, and the whole specification."""
    (figure,) = draw(["sensitivity"], study, results)
    whole = figure.chart.to_dict()
    rows = [
        [(layer["mark"]["type"], json.loads(whole["datasets"][layer["data"]["name"]])) for layer in panel["layer"]]
        for panel in whole["concat"]
    ]
    return rows, whole


def test_the_numbers_are_those_of_the_verdicts():
    study, results = make()
    data, found = sensitivity_data(study, results), compare(study, results)
    assert data.found == found
    assert [each.key for each in data.settings] == ["optimizer.beta2", "optimizer.eps"]
    values = {(one.arm, one.seed): one.epochs[-1].metrics["test_acc"] for one in results}
    for arm, by_seed in data.by_seed.items():
        assert by_seed == pytest.approx({seed: values[arm, seed] - values["default", seed] for seed in range(4)})


def test_every_level_is_drawn_in_points_with_its_interval():
    study, results = make(evidence={"margin": 0.02})
    found = compare(study, results)
    rows, whole = panels(study, results)
    band, zero, area, line, seeds, bars, *points = rows[0]
    assert band == ("rect", [{"start": -2.0, "end": 2.0, "margin": "2.00 points"}])
    assert zero == ("rule", [{"y": 0.0}])
    own = {row.arm: row for row in found.comparisons}
    means = {row["arm"]: row["start"] for _, layer in points for row in layer}
    expected = {arm: 100 * own[arm].mean_difference for arm in ("beta2_0p9", "beta2_0p99", "beta2_0p9999")}
    assert means == pytest.approx({"default": 0.0, **expected})
    assert bars[1][0]["setting"] == "beta2 = 0.9"
    assert " to " in bars[1][0]["95% interval (points)"]
    assert [row["start"] for row in bars[1]] == pytest.approx([100 * own[arm].interval[0] for arm in expected])
    assert len(seeds[1]) == 3 * 4
    assert (area[0], line[0], area[1]) == ("area", "line", line[1])
    assert all(row["start"] <= row["y"] <= row["end"] for row in line[1])
    assert "beta2 and epsilon" in whole["title"]["text"]


def test_scales_are_those_of_the_settings():
    _, whole = panels(*make())
    beta2, eps = (panel["layer"][1 + 1]["encoding"]["x"] for panel in whole["concat"])
    assert (beta2["scale"]["type"], beta2["scale"]["reverse"], beta2["title"]) == (
        "log",
        True,
        "beta2 (log scale of 1 - beta2)",
    )
    assert beta2["axis"]["values"] == pytest.approx([0.1, 0.01, 0.001, 0.0001])
    assert (eps["scale"]["type"], eps["scale"]["reverse"], eps["axis"]["values"]) == (
        "log",
        False,
        [1e-10, 1e-8, 1e-6, 1e-4],
    )
    grid = {"params": {"gap": [0.04, 0.05, 0.06]}}
    _, whole = panels(*make(grid, params={"gap": 0.05}))
    assert "type" not in whole["concat"][0]["layer"][1]["encoding"]["x"]["scale"]


def test_a_value_that_lost_trials_is_marked_and_in_no_curve():
    study, results = make()
    results = [
        replace(one, epochs=(), outcome=Outcome.DIVERGED)
        if one.arm == "beta2_0p99" or (one.arm, one.seed) == ("beta2_0p9999", 0)
        else one
        for one in results
    ]
    rows, _ = panels(study, results)
    lost = [layer for layer in rows[0] if layer[1] and "words" in layer[1][0]]
    assert [row["words"] for row in lost[0][1]] == ["4 diverged", "1 diverged"]
    assert {kind for kind, _ in rows[0]} == {"rule", "point", "text"}  # two values are left: no curve
    assert {row["arm"] for kind, layer in rows[0] for row in layer if kind == "point" and "verdict" in row} == {
        "default",
        "beta2_0p9",
    }


def test_without_three_values_there_is_nothing_to_draw():
    grid = {"optimizer": {"eps": [1e-8, 1e-6]}}
    with pytest.raises(ReportError, match="no setting takes three values or more"):
        draw(["sensitivity"], *make(grid))


def test_every_verdict_has_a_look():
    names = {verdict.value for verdict in Verdict}
    assert names < set(VERDICT_SHAPES)
    assert all(set(VERDICT_SHAPES) <= set(config(theme)["style"]) for theme in ("light", "dark"))


def test_chosen_arms_are_drawn_with_the_curve_through_all_values():
    study, results = make()
    whole = sensitivity_data(study, results)
    (figure,) = draw(["sensitivity"], study, results, options=ChartOptions(arms=("beta2_0p99",)))
    (one,) = figure.data.settings
    assert [level.arm for level in one.levels] == ["beta2_0p99", "default"]
    assert one.curve == whole.settings[0].curve
    assert set(figure.data.by_seed) == {"beta2_0p99"}
    with pytest.raises(ReportError, match="no arm that was chosen differs from the reference in such a setting alone"):
        draw(["sensitivity"], study, results, options=ChartOptions(arms=("default",)))
