"""The figures: what the specification says."""

import json
import math

import pytest

from builders import PAPER_ARMS, learning, make_results, make_study
from fairtrial.report.charts import draw, write
from fairtrial.report.charts.learning_curves import grouped
from fairtrial.trial import Outcome


def figure(study, results=None, name="test_accuracy", **options):
    (found,) = draw([name], study, make_results(study) if results is None else results, **options)
    return found


def views(spec):
    """The plots of a figure, each with its layers by what they are."""
    whole = spec.chart.to_dict()
    found = []
    for view in _leaves(whole):
        layers = {}
        for layer in view.get("layer", [view]):
            layer["rows"] = json.loads(whole["datasets"][layer["data"]["name"]])
            layers.setdefault(_kind(layer["mark"]), layer)
        found.append(view | {"layers": layers})
    return found, whole


def _leaves(view):
    for key in ("hconcat", "concat", "vconcat"):
        if key in view:
            return [leaf for each in view[key] for leaf in _leaves(each)]
    return [view]


def _kind(mark):
    if mark["type"] in {"area", "text", "rule"}:
        return {"area": "band"}.get(mark["type"], mark["type"])
    if mark["type"] == "line":
        return {0.9: "thin", 1.9: "line", 1.4: "single"}[mark["strokeWidth"]]
    return "cross" if str(mark.get("shape", "")).startswith("M") else "point" if mark["filled"] else "ring"


def layers(study, results=None, name="test_accuracy"):
    return views(figure(study, results, name))[0][0]["layers"]


def legend(study, results=None):
    return [row["label"] for row in views(figure(study, results))[0][-1]["layers"]["text"]["rows"]]


def percent(study, accuracies, seeds=3, name="test_acc"):
    """Results whose accuracy at an epoch a function of arm, seed and epoch gives."""
    return make_results(study, lambda arm, seed, epoch: {name: accuracies(arm, seed, epoch)})


def test_two_figures_with_units_on_their_axes():
    study = make_study()
    titles = [layers(study, name=name)["line"]["encoding"]["y"]["title"] for name in ("test_accuracy", "training_loss")]
    assert titles == ["Test accuracy (%)", "Training loss (nats)"]
    assert layers(study)["line"]["encoding"]["x"]["title"] == "Epoch"
    assert figure(study).data.metric == "test_acc"


def test_the_title_has_no_hash_and_the_caption_has():
    study = make_study(("a", "b"))
    found = figure(study)
    assert found.title == "Test accuracy per epoch"
    assert study.hash[:8] not in json.dumps(found.chart.to_dict()["title"])
    assert found.chart.to_dict()["title"]["subtitle"][0].startswith("made_up. Line: mean of 3 seeds")
    assert found.caption.endswith(f"Study: {study.label}.")


def test_the_alternative_text_says_where_each_arm_ends():
    study = make_study(("a", "b"), seeds=2, epochs=3)
    found = figure(study, percent(study, lambda arm, seed, epoch: {"a": 0.5, "b": 0.625}[arm]))
    assert found.alt == "Test accuracy per epoch of 2 arms over 3 epochs; means at the end: a 50.00%; b 62.50%."
    many = make_study([f"arm{at}" for at in range(20)])
    assert "means at the end: between" in figure(many).alt


def test_lines_and_bands_are_drawn_from_the_data_in_percent():
    study = make_study(("a", "b"), seeds=3, epochs=4)
    drawn, found = layers(study), figure(study)
    rows = drawn["line"]["rows"]
    assert [(row["arm"], row["epoch"]) for row in rows] == [(arm, epoch) for arm in "ab" for epoch in (1, 2, 3, 4)]
    points = [point for curve in found.data.curves for point in curve.points]
    for row, point in zip(rows, points, strict=True):
        assert [row["low"], row["mean"], row["high"]] == pytest.approx(
            [100 * point.low, 100 * point.mean, 100 * point.high]
        )
    assert drawn["band"]["rows"] == rows
    low, high = drawn["line"]["encoding"]["y"]["scale"]["domain"]
    assert low < min(row["low"] for row in rows) < max(row["high"] for row in rows) < high


def test_arms_differ_in_color_dash_and_shape():
    drawn = layers(make_study(PAPER_ARMS))
    assert drawn["line"]["encoding"]["color"]["scale"] == {"domain": list(PAPER_ARMS), "range": "category"}
    assert len({tuple(dash) for dash in drawn["line"]["encoding"]["strokeDash"]["scale"]["range"]}) == 5
    assert len(set(drawn["point"]["encoding"]["shape"]["scale"]["range"])) == 5
    assert legend(make_study(PAPER_ARMS)) == list(PAPER_ARMS)


class TestAxes:
    def test_an_accuracy_is_never_below_0_or_above_100_percent(self):
        study = make_study(("a", "b"), epochs=3)
        for low, high in ((0.0, 0.02), (0.97, 1.0), (0.0, 1.0)):
            drawn = layers(study, percent(study, lambda arm, seed, epoch, low=low, high=high: low if seed else high))
            ends = drawn["band"]["encoding"]["y"]["scale"]["domain"]
            assert 0.0 <= ends[0] < ends[1] <= 100.0

    def test_a_loss_is_not_below_0_where_no_value_is(self):
        study = make_study(("a",), epochs=3)
        results = make_results(study, lambda arm, seed, epoch: {"train_loss": 0.01 * seed})
        assert layers(study, results, "training_loss")["line"]["encoding"]["y"]["scale"]["domain"][0] == 0.0
        results = make_results(study, lambda arm, seed, epoch: {"train_loss": -0.01 * seed})
        assert layers(study, results, "training_loss")["line"]["encoding"]["y"]["scale"]["domain"][0] < 0.0

    def test_differences_of_a_point_have_a_plot_of_the_last_epochs(self):
        study = make_study(("a", "b"), epochs=12)

        def accuracy(arm, seed, epoch):
            return 0.1 + 0.7 * (1 - math.exp(-epoch)) + (0.01 if arm == "b" else 0.0)

        main, zoomed, _ = views(figure(study, percent(study, accuracy)))[0]
        assert {row["epoch"] for row in zoomed["layers"]["line"]["rows"]} == {9, 10, 11, 12}
        low, high = zoomed["layers"]["line"]["encoding"]["y"]["scale"]["domain"]
        assert high - low < 2
        assert zoomed["title"]["text"] == "Epochs 9 to 12"
        assert main["layers"]["line"]["encoding"]["y"]["scale"]["domain"][0] < 55

    def test_an_arm_far_below_the_others_does_not_squash_the_last_epochs(self):
        study = make_study(("a", "b", "c", "bad"), epochs=12)
        ends = {"a": 0.80, "b": 0.81, "c": 0.805, "bad": 0.3}
        results = percent(study, lambda arm, seed, epoch: ends[arm] - 0.3 / epoch**2)
        found = figure(study, results)
        zoomed = views(found)[0][1]["layers"]["line"]["encoding"]["y"]["scale"]["domain"]
        assert zoomed[0] > 75
        assert zoomed[1] - zoomed[0] < 5

    def test_curves_that_keep_apart_need_no_second_plot(self):
        study = make_study(("a", "b"), epochs=12)
        results = percent(study, lambda arm, seed, epoch: 0.2 + 0.05 * epoch if arm == "a" else 0.2)
        assert len(views(figure(study, results))[0]) == 2

    def test_a_loss_that_ran_away_does_not_dwarf_the_others(self):
        study = make_study(("a", "b"), seeds=1, epochs=4)

        def curve(arm, seed, epoch):
            return {"train_loss": 10.0**epoch if arm == "b" else 2.0 - epoch / 10}

        results = make_results(study, curve, ended={("b", 0): Outcome.DIVERGED}, epochs={("b", 0): 3})
        drawn = layers(study, results, "training_loss")
        domain = drawn["line"]["encoding"]["y"]["scale"]["domain"]
        assert domain[1] < 3
        assert all(drawn[kind]["mark"]["clip"] for kind in ("line", "thin", "point"))
        (cross,) = drawn["cross"]["rows"]
        assert (cross["edge"], cross["y"]) == (domain[1], 1000.0)
        assert "A × on the frame" in figure(study, results, "training_loss").caption

    def test_a_first_epoch_far_off_does_not_squash_the_rest(self):
        study = make_study(("a", "b"), epochs=10)
        results = make_results(study, lambda arm, seed, epoch: {"train_loss": 500.0 if epoch == 1 else 1 + seed / 10})
        found = figure(study, results, "training_loss")
        assert views(found)[0][0]["layers"]["line"]["encoding"]["y"]["scale"]["domain"][1] < 2
        assert "Lines leave the plot where they would squash the rest; all values: 1 to 500." in found.caption

    def test_a_finished_arm_that_ran_away_does_not_dwarf_the_others(self):
        study = make_study(("a", "b", "c", "d"), epochs=4)
        results = make_results(study, lambda arm, seed, epoch: {"train_loss": 900.0 if arm == "d" else 1 + seed / 10})
        domain = layers(study, results, "training_loss")["line"]["encoding"]["y"]["scale"]["domain"]
        assert domain[1] < 2


class TestSeeds:
    def test_one_seed_has_no_band_and_the_figure_says_so(self):
        study = make_study(seeds=1)
        assert layers(study)["band"]["rows"] == []
        assert "the spread between seeds is not known" in figure(study).caption

    def test_the_subtitle_says_what_line_and_band_are(self):
        study = make_study(("a", "b"), seeds=3)
        assert "Line: mean of 3 seeds; band: lowest to highest seed." in figure(study).caption
        fewer = make_results(study, skip={("b", 2)})
        assert "Line: mean of 2 to 3 seeds" in figure(study, fewer).caption

    def test_one_seed_beside_several_is_marked(self):
        study = make_study(("a", "b"), seeds=3)
        results = make_results(study, skip={("b", 1), ("b", 2)})
        drawn = layers(study, results)
        assert {row["arm"] for row in drawn["line"]["rows"]} == {"a"}
        assert {row["arm"] for row in drawn["single"]["rows"]} == {"b"} == {row["arm"] for row in drawn["ring"]["rows"]}
        assert drawn["single"]["mark"]["strokeDash"] == [3, 3]
        assert legend(study, results) == ["a", "b (1 seed)"]
        assert "Dashed with open points: the mean of one seed" in figure(study, results).caption

    def test_where_some_trials_have_ended_there_is_no_mean_of_the_others(self):
        study = make_study(("a", "b"), seeds=2, epochs=4, training={"loop": "loops:good"})
        results = make_results(study, epochs={("b", 1): 2})
        drawn = layers(study, results)
        assert max(row["epoch"] for row in drawn["line"]["rows"] if row["arm"] == "b") == 2
        assert [(row["seed"], row["epoch"]) for row in drawn["thin"]["rows"]] == [(0, 2), (0, 3), (0, 4)]
        assert "A line ends where not all of its seeds have a value" in figure(study, results).caption
        assert "A line ends" not in figure(study).caption


class TestLost:
    def test_a_diverged_trial_is_a_faint_line_that_ends_in_a_cross(self):
        study = make_study(("a", "b"), seeds=2, epochs=4)
        results = make_results(study, ended={("b", 1): Outcome.DIVERGED}, epochs={("b", 1): 3})
        drawn = layers(study, results)
        assert [(row["arm"], row["seed"], row["epoch"]) for row in drawn["thin"]["rows"]] == [
            ("b", 1, epoch) for epoch in (1, 2, 3)
        ]
        (cross,) = drawn["cross"]["rows"]
        assert cross["epoch"] == 3
        assert cross["y"] == cross["edge"] == pytest.approx(100 * learning("b", 1, 3)["test_acc"])
        assert legend(study, results) == ["a", "b (1 seed, 1 of 2 diverged)"]
        assert "a trial that diverged; it enters no mean." in figure(study, results).caption

    def test_a_run_that_did_not_learn_is_a_faint_line_of_its_own_and_in_no_mean(self):
        ends = {"a": [0.85, 0.84, 0.86, 0.85], "b": [0.87, 0.1, 0.88, 0.86]}
        study = make_study(tuple(ends), seeds=4, epochs=2)
        results = percent(study, lambda arm, seed, epoch: ends[arm][seed])
        drawn = layers(study, results)
        assert {(row["arm"], row["seed"], row["y"]) for row in drawn["thin"]["rows"]} == {("b", 1, 10.0)}
        assert [row["mean"] for row in drawn["line"]["rows"] if row["arm"] == "b"] == pytest.approx([87.0, 87.0])
        assert legend(study, results) == ["a", "b (1 of 4 fell behind)"]

    def test_what_is_left_out_is_said(self):
        study = make_study(("a", "b", "c"), seeds=2)
        results = make_results(study, ended={("a", 0): Outcome.FAILED, ("b", 1): None}, skip={("c", 0), ("c", 1)})
        assert figure(study, results).chart.to_dict()["title"]["subtitle"][-1] == (
            "Left out: 2 failed or unfinished trials."
        )
        assert legend(study, results) == ["a", "b", "c (no data)"]

    def test_when_all_trials_diverged_they_are_still_drawn(self):
        study = make_study(("a",), seeds=2, epochs=4)
        results = make_results(study, ended={("a", seed): Outcome.DIVERGED for seed in range(2)})
        found = figure(study, results)
        assert "No trial finished." in found.caption
        assert found.alt == "Test accuracy per epoch of 1 arm; no trial finished."
        assert len(layers(study, results)["cross"]["rows"]) == 2


class TestManyArms:
    def test_up_to_six_share_a_plot_and_up_to_twelve_have_one_each(self):
        for number, plots in ((6, 2), (7, 7), (12, 12)):
            found, whole = views(figure(make_study([f"arm{at}" for at in range(number)])))
            assert len(found) == plots
            assert ("concat" in whole) == (number > 6)
        first = found[1]["layers"]
        assert {row["arm"] for row in first["line"]["rows"]} == {"arm1"}
        assert found[1]["title"]["text"] == "arm1"
        gray, own = (layer for layer in found[1]["layer"][:2])
        assert {row["arm"] for row in gray["rows"]} == {f"arm{at}" for at in range(2, 12)}
        assert ({row["arm"] for row in own["rows"]}, own["mark"]["style"]) == ({"arm0"}, "ink")

    def test_small_plots_share_their_axis(self):
        found, _ = views(figure(make_study([f"arm{at}" for at in range(9)])))
        domains = [view["layers"]["line"]["encoding"]["y"]["scale"]["domain"] for view in found]
        assert domains == [domains[0]] * 9

    def test_thirty_are_in_groups_by_where_they_end_each_with_the_reference(self):
        study = make_study([f"arm{at:02}" for at in range(30)])
        results = percent(study, lambda arm, seed, epoch: 0.5 + int(arm[3:]) / 100)
        found = figure(study, results)
        plots = [view for view in views(found)[0] if "line" in view["layers"] and "title" in view]
        assert [plot["title"]["text"] for plot in plots] == [
            f"{start} to {start + 5} of 30" for start in (1, 7, 13, 19, 25)
        ]
        arms = [{row["arm"] for row in plot["layers"]["line"]["rows"]} for plot in plots]
        assert arms[0] == {"arm00", *(f"arm{at}" for at in range(24, 30))}
        assert arms[-1] == {f"arm{at:02}" for at in range(6)}
        assert "30 arms in groups of 6 by their last mean" in found.caption

    def test_of_a_hundred_the_ends_are_drawn_and_the_rest_is_said(self):
        study = make_study([f"arm{at:03}" for at in range(100)], seeds=1)
        results = percent(study, lambda arm, seed, epoch: int(arm[3:]) / 100)
        found = figure(study, results)
        groups, hidden = grouped(study, found.data)
        assert [start for start, _ in groups] == [1, 7, 13, 85, 91, 97]
        assert (hidden, "66 in the middle are not drawn" in found.caption) == (66, True)


def test_epochs_are_whole_numbers():
    axis = layers(make_study(("a",), seeds=1, epochs=24))["line"]["encoding"]["x"]["axis"]
    assert (axis["values"], axis["format"]) == (list(range(2, 25, 2)), "d")


def test_one_epoch_is_a_row_for_each_arm():
    study = make_study(("a", "b", "c"), seeds=2, epochs=1)
    (view,), whole = views(figure(study))
    drawn = view["layers"]
    assert [(row["row"], row["n"]) for row in drawn["rule"]["rows"]] == [("a", 2), ("b", 2), ("c", 2)]
    assert [row["x"] for row in drawn["point"]["rows"]] == pytest.approx(
        [100 * curve.points[0].mean for curve in figure(study).data.curves]
    )
    assert len(drawn["ring"]["rows"]) == 6
    assert "Point: mean of 2 seeds" in whole["title"]["subtitle"][0]


def test_long_runs_thin_out_the_points_but_not_the_line():
    drawn = layers(make_study(("a",), seeds=1, epochs=100))
    assert len(drawn["line"]["rows"]) == 100
    assert 8 <= len(drawn["point"]["rows"]) <= 13
    assert drawn["point"]["rows"][-1]["epoch"] == 100


def test_thinned_points_of_different_arms_do_not_hide_each_other():
    rows = layers(make_study(("a", "b"), seeds=1, epochs=100))["point"]["rows"]
    a, b = ({row["epoch"] for row in rows if row["arm"] == arm} for arm in "ab")
    assert a & b == {100}


def test_more_rows_than_altairs_limit(tmp_path):
    study = make_study([f"arm{index}" for index in range(11)], seeds=1, epochs=500)
    assert len(layers(study)["line"]["rows"]) == 500
    assert write(figure(study), tmp_path)


def test_any_metric_has_learning_curves():
    study = make_study(("a", "b"), seeds=2)
    results = make_results(study, lambda arm, seed, epoch: {"grad_norm": epoch * 2.0, "val_acc": 0.5})
    norm, accuracy = draw(["grad_norm", "val_acc"], study, results)
    assert (norm.name, norm.data.metric) == ("grad_norm", "grad_norm")
    titles = [views(each)[0][0]["layers"]["line"]["encoding"]["y"]["title"] for each in (norm, accuracy)]
    assert titles == ["Grad norm", "Validation accuracy (%)"]


def test_metrics_of_a_users_own_measure_are_drawn_unasked():
    study = make_study(
        ("a", "b"),
        training={"loop": "loops:good"},
        metrics={"f1": {"unit": "fraction"}},
        evidence={"metric": "final_f1", "direction": "higher"},
    )
    results = make_results(study, lambda arm, seed, epoch: {"f1": 0.5 + epoch / 100 + seed / 1000 + (arm == "b") / 50})
    names = [found.name for found in draw([], study, results)]
    assert {"differences", "f1"} <= set(names)
