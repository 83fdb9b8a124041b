"""The figures: what the specification says, and that files are what their names say."""

import json

import pytest

from builders import PAPER_ARMS, learning, make_results, make_study
from fairtrial.report.charts import draw, write
from fairtrial.report.style import PALETTE
from fairtrial.trial import Outcome


def figures(study, results):
    return draw(["test_accuracy", "training_loss"], study, results)


def spec(study, results=None, figure=0):
    """The Vega-Lite specification of a figure, with each layer's rows."""
    name = ("test_accuracy", "training_loss")[figure]
    (drawn,) = draw([name], study, make_results(study) if results is None else results)
    whole = drawn.chart.to_dict()
    for view in whole["hconcat"]:
        for layer in view["layer"]:
            layer["rows"] = json.loads(whole["datasets"][layer["data"]["name"]])
    return whole


def layers(study, results=None, figure=0):
    """The layers of the plot by what they are."""
    names = ["band", "broken", "line", "point", "cross"]
    return dict(zip(names, spec(study, results, figure)["hconcat"][0]["layer"], strict=True))


def legend(whole):
    return [row["label"] for row in whole["hconcat"][1]["layer"][1]["rows"]]


def test_two_figures_with_units_on_their_axes():
    study = make_study()
    accuracy, loss = figures(study, make_results(study))
    assert (accuracy.name, accuracy.data.metric) == ("test_accuracy", "test_acc")
    assert (loss.name, loss.data.metric) == ("training_loss", "train_loss")
    titles = [layers(study, figure=figure)["line"]["encoding"]["y"]["title"] for figure in (0, 1)]
    assert titles == ["Test accuracy (%)", "Training loss (nats)"]
    assert layers(study)["line"]["encoding"]["x"]["title"] == "Epoch"


def test_lines_and_bands_are_drawn_from_the_data_in_percent():
    study = make_study(("a", "b"), seeds=3, epochs=4)
    (accuracy, _) = figures(study, make_results(study))
    drawn = layers(study)
    rows = drawn["line"]["rows"]
    assert [(row["arm"], row["x"]) for row in rows] == [(arm, epoch) for arm in "ab" for epoch in (1, 2, 3, 4)]
    points = [point for curve in accuracy.data.curves for point in curve.points]
    for row, point in zip(rows, points, strict=True):
        assert [row["low"], row["mean"], row["high"]] == pytest.approx(
            [100 * point.low, 100 * point.mean, 100 * point.high]
        )
    assert drawn["band"]["rows"] == rows
    low, high = drawn["line"]["encoding"]["y"]["scale"]["domain"]
    assert low < min(row["low"] for row in rows) < max(row["high"] for row in rows) < high


def test_arms_differ_in_color_dash_and_shape():
    study = make_study(PAPER_ARMS)
    drawn = layers(study)
    color = drawn["line"]["encoding"]["color"]["scale"]
    assert color == {"domain": list(PAPER_ARMS), "range": list(PALETTE[:5])}
    assert len({tuple(dash) for dash in drawn["line"]["encoding"]["strokeDash"]["scale"]["range"]}) == 5
    assert len(set(drawn["point"]["encoding"]["shape"]["scale"]["range"])) == 5


def test_the_legend_names_every_arm_beside_the_plot():
    whole = spec(make_study(PAPER_ARMS))
    assert legend(whole) == list(PAPER_ARMS)
    line, point, text = whole["hconcat"][1]["layer"]
    assert {row["arm"] for row in line["rows"]} == set(PAPER_ARMS)
    assert set(point["encoding"]) >= {"color", "shape"}
    assert text["encoding"]["text"]["field"] == "label"


def test_one_seed_has_no_band_and_the_figure_says_so():
    study = make_study(seeds=1)
    assert layers(study)["band"]["rows"] == []
    assert "the spread between seeds is not known" in spec(study)["title"]["subtitle"][0]


def test_the_subtitle_says_what_line_and_band_are():
    study = make_study(("a", "b"), seeds=3)
    assert spec(study)["title"]["subtitle"] == [f"{study.label}. Line: mean of 3 seeds; band: lowest to highest seed."]
    fewer = make_results(study, skip={("b", 2)})
    assert "Line: mean of 2 to 3 seeds" in spec(study, fewer)["title"]["subtitle"][0]


def test_a_diverged_trial_is_a_faint_line_that_ends_in_a_cross():
    study = make_study(("a", "b"), seeds=2, epochs=4)
    results = make_results(study, ended={("b", 1): Outcome.DIVERGED}, epochs={("b", 1): 3})
    drawn = layers(study, results)
    assert [(row["arm"], row["seed"], row["epoch"]) for row in drawn["broken"]["rows"]] == [
        ("b", 1, epoch) for epoch in (1, 2, 3)
    ]
    (cross,) = drawn["cross"]["rows"]
    assert cross["epoch"] == 3
    assert cross["y"] == pytest.approx(100 * learning("b", 1, 3)["test_acc"])
    assert {row["n"] for row in drawn["line"]["rows"] if row["arm"] == "b"} == {1}
    whole = spec(study, results)
    assert legend(whole) == ["a", "b (1 of 2 diverged)"]
    assert any("enters no mean" in remark for remark in whole["title"]["subtitle"])


def test_a_run_that_did_not_learn_is_a_faint_line_of_its_own_and_in_no_mean():
    ends = {"a": [0.85, 0.84, 0.86, 0.85], "b": [0.87, 0.1, 0.88, 0.86]}
    study = make_study(tuple(ends), seeds=4, epochs=2)
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": ends[arm][seed]})
    drawn = layers(study, results)
    assert {(row["arm"], row["seed"], row["y"]) for row in drawn["broken"]["rows"]} == {("b", 1, 10.0)}
    assert [row["mean"] for row in drawn["line"]["rows"] if row["arm"] == "b"] == pytest.approx([87.0, 87.0])
    assert legend(spec(study, results)) == ["a", "b (1 of 4 fell behind)"]


def test_a_line_where_some_trials_have_ended_is_said_to_be_of_the_others():
    study = make_study(("a", "b"), seeds=2, epochs=4, training={"loop": "loops:good"})
    remark = "Some trials have fewer epochs: where they end, a line is the mean of the others."
    assert remark not in spec(study, make_results(study))["title"]["subtitle"]
    assert remark in spec(study, make_results(study, epochs={("b", 1): 2}))["title"]["subtitle"]


def test_a_loss_that_ran_away_does_not_dwarf_the_others():
    study = make_study(("a", "b"), seeds=1, epochs=4)

    def curve(arm, seed, epoch):
        return {"train_loss": 10.0**epoch if arm == "b" else 2.0 - epoch / 10}

    results = make_results(study, curve, ended={("b", 0): Outcome.DIVERGED}, epochs={("b", 0): 3})
    drawn = layers(study, results, 1)
    scale = drawn["line"]["encoding"]["y"]["scale"]
    assert scale["domain"][1] < 3
    assert scale["clamp"] is True
    assert drawn["broken"]["rows"] == []
    assert [row["y"] for row in drawn["cross"]["rows"]] == [1000.0]
    assert "A × on the frame" in spec(study, results, 1)["title"]["subtitle"][1]


def test_what_is_left_out_is_said():
    study = make_study(("a", "b", "c"), seeds=2)
    results = make_results(study, ended={("a", 0): Outcome.FAILED, ("b", 1): None}, skip={("c", 0), ("c", 1)})
    whole = spec(study, results)
    assert whole["title"]["subtitle"][-1] == "Left out: 2 failed or unfinished trials."
    assert legend(whole) == ["a", "b", "c (no data)"]


def test_when_all_trials_diverged_they_are_still_drawn():
    study = make_study(("a",), seeds=2, epochs=4)
    results = make_results(study, ended={("a", seed): Outcome.DIVERGED for seed in range(2)})
    whole = spec(study, results)
    assert "No trial finished." in whole["title"]["subtitle"][0]
    assert len(layers(study, results)["cross"]["rows"]) == 2


@pytest.mark.parametrize(
    ("epochs", "ticks"),
    [(1, [1]), (2, [1, 2]), (10, list(range(1, 11))), (24, list(range(2, 25, 2))), (100, list(range(10, 101, 10)))],
)
def test_epochs_are_whole_numbers_and_not_too_many(epochs, ticks):
    axis = layers(make_study(("a",), seeds=1, epochs=epochs))["line"]["encoding"]["x"]["axis"]
    assert axis["values"] == ticks
    assert axis["format"] == "d"


def test_one_epoch_shows_points_side_by_side():
    study = make_study(("a", "b", "c"), seeds=2, epochs=1)
    drawn = layers(study)
    places = [row["x"] for row in drawn["point"]["rows"]]
    low, high = drawn["line"]["encoding"]["x"]["scale"]["domain"]
    assert len(set(places)) == 3
    assert low < min(places) < max(places) < high
    assert drawn["band"]["mark"]["type"] == "rule"


def test_long_runs_thin_out_the_points_but_not_the_line():
    study = make_study(("a",), seeds=1, epochs=100)
    drawn = layers(study)
    assert len(drawn["line"]["rows"]) == 100
    assert 8 <= len(drawn["point"]["rows"]) <= 13
    assert drawn["point"]["rows"][-1]["epoch"] == 100


def test_thinned_points_of_different_arms_do_not_hide_each_other():
    rows = layers(make_study(("a", "b"), seeds=1, epochs=100))["point"]["rows"]
    a, b = ({row["epoch"] for row in rows if row["arm"] == arm} for arm in "ab")
    assert a & b == {100}


def test_more_rows_than_altairs_limit(tmp_path):
    study = make_study([f"arm{index}" for index in range(11)], seeds=1, epochs=500)
    assert len(layers(study)["line"]["rows"]) == 5500
    assert write(figures(study, make_results(study))[0], tmp_path)


def test_any_metric_has_learning_curves():
    study = make_study(("a", "b"), seeds=2)

    def curve(arm, seed, epoch):
        return {"grad_norm": epoch * 2.0, "val_acc": 0.5}

    results = make_results(study, curve)
    norm, accuracy = draw(["grad_norm", "val_acc"], study, results)
    assert (norm.name, norm.data.metric) == ("grad_norm", "grad_norm")
    titles = [each.chart.to_dict()["hconcat"][0]["layer"][2]["encoding"]["y"]["title"] for each in (norm, accuracy)]
    assert titles == ["Grad norm", "Validation accuracy (%)"]
