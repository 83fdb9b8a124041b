"""Training against test data, and the gap between them."""

import pytest

from builders import PAPER_ARMS, learning, make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.charts import draw
from report.charts.drawings import plots, rows, subtitle


def test_both_curves_of_each_arm_are_drawn_on_one_axis():
    study = make_study(("a", "b"), seeds=2, epochs=3)
    (figure,) = draw(["overfitting"], study, make_results(study))
    assert (figure.data.train.metric, figure.data.test.metric) == ("train_acc", "test_acc")
    first, second = plots(figure)
    assert [view["title"]["text"] for view in (first, second)] == ["a", "b"]
    for style, metric in (("worse", "train_acc"), ("equivalent", "test_acc")):
        means = [row["mean"] for row in rows(first, "line", style=style, strokeWidth=1.9)]
        expected = [50 * sum(learning("a", seed, epoch)[metric] for seed in range(2)) for epoch in (1, 2, 3)]
        assert means == pytest.approx(expected)
    dashes = {
        layer["mark"]["style"]: layer["mark"]["strokeDash"] for layer in first["layer"] if "strokeDash" in layer["mark"]
    }
    assert dashes["worse"] != dashes["equivalent"] == [1, 0]
    assert {row["label"] for row in rows(first, "text")} == {"training", "test"}
    domains = [layer["encoding"]["y"]["scale"]["domain"] for view in plots(figure) for layer in view["layer"]]
    assert domains == [domains[0]] * len(domains)
    assert figure.alt.startswith("Training against test accuracy per epoch; at the end, training and test: a ")


def test_without_accuracies_losses_are_compared_and_without_test_data_validation():
    study = make_study(("a",), seeds=1)
    losses = make_results(study, lambda arm, seed, epoch: {"train_loss": 1.0, "val_loss": 2.0, "train_acc": 0.5})
    (figure,) = draw(["overfitting"], study, losses)
    assert (figure.data.train.metric, figure.data.test.metric) == ("train_loss", "val_loss")
    (gap,) = draw(["generalization_gap"], study, losses)
    assert {point.mean for curve in gap.data.curves for point in curve.points} == {1.0}
    assert plots(gap)[0]["layer"][1]["encoding"]["y"]["title"] == "Validation minus training loss"


def test_without_both_there_is_nothing_to_draw():
    study = make_study(("a",), seeds=1)
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": 0.5})
    for name in ("overfitting", "generalization_gap"):
        with pytest.raises(ReportError, match="no metric was recorded of both training and test data"):
            draw([name], study, results)


def test_the_gap_is_training_minus_test_in_points():
    study = make_study(PAPER_ARMS, seeds=2, epochs=4)
    (figure,) = draw(["generalization_gap"], study, make_results(study))
    for curve in figure.data.curves:
        for point in curve.points:
            both = [learning(curve.arm, seed, point.epoch) for seed in range(2)]
            gaps = [one["train_acc"] - one["test_acc"] for one in both]
            assert list(point.values.values()) == pytest.approx(gaps)
    main = plots(figure)[0]
    drawn = [row["mean"] for row in rows(main, "line", strokeWidth=1.9) if row["arm"] == "baseline"]
    assert drawn == pytest.approx([100 * point.mean for point in figure.data.curves[0].points])
    assert main["layer"][1]["encoding"]["y"]["title"] == "Training minus test accuracy (points)"
    assert "Above 0: better on the data that it was trained on." in subtitle(figure)


def test_a_gap_below_0_is_on_the_axis():
    study = make_study(("a",), seeds=2)
    results = make_results(study, lambda arm, seed, epoch: {"train_acc": 0.5, "test_acc": 0.52 + seed / 100})
    (figure,) = draw(["generalization_gap"], study, results)
    assert plots(figure)[0]["layer"][1]["encoding"]["y"]["scale"]["domain"][0] < -3


@pytest.mark.parametrize(("number", "drawn"), [(1, 1), (5, 5), (12, 12), (24, 24), (30, 24)])
def test_of_many_arms_the_first_are_drawn_and_the_rest_is_said(number, drawn):
    arms = [f"arm{at:02}" for at in range(number)]
    study = make_study(arms, seeds=1)
    (figure,) = draw(["overfitting"], study, make_results(study))
    assert len(plots(figure)) == drawn
    assert (f"Not drawn: {number - drawn} more arms; choose them with --arm." in subtitle(figure)) == (number > drawn)
