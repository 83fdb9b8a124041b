"""The charts of the x-ray: that what is drawn is what was measured."""

import json

import pytest
import vl_convert

from builders import make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.chart_options import ChartOptions
from fairtrial.report.charts import draw
from fairtrial.report.charts.xray import MOST
from report.test_xray import LENGTH, xrayed

NAMES = ["xray_sqrt_vhat", "xray_epsilon", "xray_updates", "xray_layers", "xray_losses"]


def drawn(name, study, results, **options):
    (figure,) = draw([name], study, results, options=ChartOptions(**options))
    whole = figure.chart.to_dict()
    return figure, [row for data in whole["datasets"].values() for row in json.loads(data)]


@pytest.fixture
def study():
    return make_study(("baseline", "large_eps"), seeds=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_chart_is_drawn_and_described(name, study, tmp_path):
    figure, rows = drawn(name, study, xrayed(study))
    assert rows
    assert figure.title
    assert study.name in figure.caption
    assert figure.alt.endswith(".")
    assert figure.chart.to_dict()["config"]
    assert figure.spec("dark")["config"]["background"] != "#ffffff"


def test_lines_are_the_statistics(study):
    results = xrayed(study, lambda arm, seed, step: {"eps_over_10pct": step / 1e5 + (arm == "large_eps") / 10})
    _, rows = drawn("xray_epsilon", study, results)
    for arm, extra in (("baseline", 0.0), ("large_eps", 0.1)):
        own = [round(row["x"] * LENGTH) for row in rows if row.get("arm") == arm and "step" in row]
        values = [row["y"] for row in rows if row.get("arm") == arm and row.get("step") == LENGTH]
        assert 100 * (LENGTH / 1e5 + extra) in [pytest.approx(value) for value in values]
        assert {*own} == {1, 50, LENGTH, 2 * LENGTH, 4 * LENGTH}


def test_bands_are_the_percentiles_and_epsilon_is_a_line(study):
    _, rows = drawn("xray_sqrt_vhat", study, xrayed(study))
    bands = [row for row in rows if "p50" in row]
    assert bands[0]["p5"] == pytest.approx(10**-3.9)
    assert bands[0]["p95"] == pytest.approx(10**-2.1)
    assert {row["eps"] for row in rows if "eps" in row} == {1e-8}


def test_arms_are_chosen_and_too_many_are_said():
    study = make_study([f"arm_{number:02d}" for number in range(MOST + 3)], seeds=1)
    results = xrayed(study)
    figure, rows = drawn("xray_updates", study, results)
    assert len({row["arm"] for row in rows if "step" in row}) == MOST
    assert "3 more arms not drawn: choose arms with --arm." in figure.caption
    figure, rows = drawn("xray_updates", study, results, arms=("arm_01", "arm_14"))
    assert {row["arm"] for row in rows if "step" in row} == {"arm_01", "arm_14"}
    assert "not drawn" not in figure.caption


def test_what_was_not_measured_is_not_drawn(study):
    with pytest.raises(ReportError, match="no x-ray"):
        draw(["xray_epsilon"], study, make_results(study))
    bare = xrayed(study)
    for one in bare:
        for each in one.snapshots:
            for name in [key for key in each.overall if key.startswith(("eps", "log10"))]:
                del each.overall[name]
    with pytest.raises(ReportError, match="no optimizer has what this chart shows"):
        draw(["xray_epsilon"], study, bare)
    assert draw(["xray_updates"], study, bare)


def test_a_study_of_one_epoch_has_a_plain_axis(study):
    figure, rows = drawn("xray_updates", study, xrayed(study, steps=(LENGTH,)))
    assert {row["x"] for row in rows if "step" in row} == {1.0}
    assert "log scale" not in json.dumps(figure.chart.to_dict())


@pytest.mark.parametrize(("epochs", "marks"), [((2,), [2]), ((2, 3, 5), [2, 3, 4, 5]), ((2, 20), [5, 10, 15, 20])])
def test_a_plain_axis_marks_whole_epochs_only(study, epochs, marks):
    figure, _ = drawn("xray_updates", study, xrayed(study, steps=[LENGTH * epoch for epoch in epochs]))
    found = [*axes_of_epochs(figure.chart.to_dict())]
    assert len(found) >= 3
    assert all(one == marks for one in found)


def axes_of_epochs(part):
    """The marks of each axis of epochs in a chart, found at any depth."""
    if isinstance(part, dict) and part.get("title") == "Epochs":
        yield part["axis"]["values"]
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from axes_of_epochs(inner)


def test_no_label_stands_out_above_a_panel_and_lifts_its_title(study):
    """Titles of panels side by side are level: Vega puts them above all that a panel draws."""
    names = ["xray_sqrt_vhat", "xray_losses"]
    epsilons = {"baseline": 1e-8, "large_eps": 0.02}
    losses = {"train_loss": 0.53, "test_loss": 0.36}  # whose axes end below and at their last label
    results = xrayed(study, lambda arm, seed, step: {"eps": epsilons[arm], **losses})
    for figure in draw(names, study, results):
        found = list(tops(vl_convert.vegalite_to_scenegraph(figure.chart.to_dict())["scenegraph"]))
        assert len(found) == 2
        assert max(found) - min(found) <= 1, figure.name  # the width of a line


def tops(item, at=0.0, role=""):
    """Where the titles of panels are, in pixels from the top."""
    for each in item.get("items", []):
        own = each.get("role", role)
        if own == "title-text" and each.get("fontSize") == 11:
            yield at + each.get("y", 0.0)
        yield from tops(each, at + each.get("y", 0.0), own)
