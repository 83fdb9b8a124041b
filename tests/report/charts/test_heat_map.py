"""Heat maps: a cell for each combination, with the verdict's numbers."""

import json
from dataclasses import replace

import pytest

from fairtrial.errors import ReportError
from fairtrial.report.chart_options import ChartOptions
from fairtrial.report.charts import draw
from fairtrial.report.charts.heat_map import heat_map_data
from fairtrial.spec import Study
from fairtrial.stats.comparison import compare
from fairtrial.testing import simulated_results
from fairtrial.trial import Outcome

GRID = {"optimizer": {"lr": [1e-4, 1e-3, 1e-2], "beta2": [0.99, 0.999]}}


def make(grid=GRID, seeds=3, **more):
    table = {"name": "s", "reference": "default", "seeds": seeds, "arms": {"default": {}}, **more}
    table["training"] = {"loop": "fairtrial.testing:simulate", "epochs": 1}
    study = Study.from_dict(table | {"grid": grid})
    return study, list(simulated_results(study))


def drawn(study, results):
    (figure,) = draw(["heat_map"], study, results)
    whole = figure.chart.to_dict()
    return [json.loads(whole["datasets"][layer["data"]["name"]]) for layer in whole["layer"]], whole


def test_the_cells_are_the_verdicts():
    study, results = make()
    data, found = heat_map_data(study, results), compare(study, results)
    assert (data.keys, data.values) == (("optimizer.lr", "optimizer.beta2"), ((1e-4, 1e-3, 1e-2), (0.99, 0.999)))
    assert data.found == found
    assert {cell.arm for cell in data.cells.values()} == {arm.name for arm in study.arms}
    assert data.cells[1e-3, 0.999].verdict == "reference"
    for row in found.comparisons:
        settings = study.arm(row.arm).settings.optimizer
        cell = data.cells[settings.lr, settings.betas[1]]
        assert (cell.arm, cell.difference, cell.interval) == (row.arm, row.mean_difference, row.interval)


def test_every_cell_is_drawn_in_points():
    study, results = make(evidence={"margin": 0.01})
    found = compare(study, results)
    (unknown, cells, own, *texts), whole = drawn(study, results)
    assert unknown == []
    assert {row["arm"]: row["z"] for row in cells} == pytest.approx(
        {"default": 0.0} | {row.arm: 100 * row.mean_difference for row in found.comparisons}
    )
    assert [row["arm"] for row in own] == ["default"]
    words = {row["arm"]: row["words"] for rows in texts for row in rows}
    assert words == {"default": "reference"} | {row.arm: row.verdict.value for row in found.comparisons}
    scale = whole["layer"][1]["encoding"]["color"]["scale"]
    most = max(abs(row["z"]) for row in cells)
    assert (scale["range"], scale["domain"]) == ("diverging", pytest.approx([-most, 0.0, most]))
    assert whole["layer"][1]["encoding"]["y"]["sort"] == ["0.999", "0.99"]
    assert "Equivalent: within 1.00 points." in whole["title"]["subtitle"]


def test_of_a_loss_lower_is_better():
    _, whole = drawn(*make(evidence={"metric": "final_test_loss"}))
    scale = whole["layer"][1]["encoding"]["color"]["scale"]
    assert scale["domain"][0] == -scale["domain"][-1] > 0


def test_lost_trials_are_in_their_cell():
    study, results = make()
    results = [replace(one, epochs=(), outcome=Outcome.DIVERGED) if "0p01" in one.arm else one for one in results]
    (unknown, *_), _ = drawn(study, results)
    assert {row["words"] for row in unknown} == {"3 diverged"}
    assert len(unknown) == 2


def test_without_combinations_there_is_no_map():
    alone = {"design": "one_at_a_time", **GRID}
    with pytest.raises(ReportError, match="no arm differs from the reference in two numbers"):
        draw(["heat_map"], *make(alone))
    few = {"a": {"optimizer": {"lr": 0.1, "eps": 1e-6}}, "default": {}}
    grid = {"design": "one_at_a_time", "optimizer": {"lr": [1e-4, 1e-2, 1e-3], "eps": [1e-8, 1e-7, 1e-5, 1e-4]}}
    with pytest.raises(ReportError, match=r"too few arms combine values of optimizer\.eps and optimizer\.lr"):
        draw(["heat_map"], *make(grid, arms=few))


def test_a_cell_has_one_arm():
    grid = {"params": {"mean": [0.7, 0.9], "noise_sd": [1, 2]}}
    params = {"mean": 0.8, "noise_sd": 1.0}
    assert heat_map_data(*make(grid, params=params)).cells
    study, results = make(grid, params=params, arms={"default": {}, "low": {"params": {"mean": 0.7}}})
    with pytest.raises(ReportError, match="one as an integer and one as a fraction"):
        heat_map_data(study, results)


def test_chosen_arms_are_the_only_cells_beside_the_reference():
    study, results = make()
    whole = heat_map_data(study, results)
    names = [cell.arm for key, cell in whole.cells.items() if key[0] == 1e-2]
    (figure,) = draw(["heat_map"], study, results, options=ChartOptions(arms=tuple(names)))
    assert {cell.arm for cell in figure.data.cells.values()} == {*names, "default"}
    assert figure.data.found == whole.found
    differences = {cell.arm: cell.difference for cell in whole.cells.values()}
    assert {cell.arm: cell.difference for cell in figure.data.cells.values()}.items() <= differences.items()
