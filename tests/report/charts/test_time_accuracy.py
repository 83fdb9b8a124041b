"""Time against accuracy."""

import pytest

from builders import learning, make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.chart_options import ChartOptions
from fairtrial.report.charts import draw
from fairtrial.report.charts.time_accuracy import frontier, time_data
from report.charts.drawings import plots, rows, subtitle


def test_times_add_up_and_are_means_over_seeds():
    study = make_study(("a", "b"), seeds=2, epochs=3)
    data = time_data(study, make_results(study))
    for arm in data.arms:
        for point in arm.points:
            assert point.seconds == pytest.approx(point.epoch * (70.5 + 2.5))
            assert point.mean == pytest.approx(sum(learning(arm.arm, s, point.epoch)["test_acc"] for s in range(2)) / 2)
    assert data.longest == pytest.approx(3 * 73.5)


def test_lines_go_through_epochs_in_a_unit_that_fits():
    study = make_study(("a", "b"), seeds=2, epochs=3)
    (figure,) = draw(["time_accuracy"], study, make_results(study))
    plot, _ = plots(figure)
    times = [row["time"] for row in rows(plot, "line") if row["arm"] == "a"]
    assert times == pytest.approx([73.0 * epoch / 60 for epoch in (1, 2, 3)])
    assert plot["layer"][1]["encoding"]["x"]["title"] == "Time (minutes)"
    assert len(rows(plot, "point", filled=False)) == 4
    assert "a 6" in figure.alt or "a 7" in figure.alt
    assert "after 3 min 39 s" in figure.alt


def test_many_arms_are_points_and_of_very_many_the_best_are_named():
    arms = [f"arm{at:02}" for at in range(20)]
    study = make_study(arms, seeds=1)

    def curve(arm, seed, epoch):
        at = int(arm[3:])
        return {"test_acc": 0.5 + at / 100, "train_seconds": 1.0 if at == 19 else 20.0 - at / 10 if at else 0.5}

    results = make_results(study, curve)
    (figure,) = draw(["time_accuracy"], study, results)
    (plot,) = plots(figure)
    assert len(rows(plot, "point", filled=True)) == 20
    assert {row["label"] for row in rows(plot, "text")} == {"arm00", "arm19"} == frontier(figure.data, higher=True)
    assert "Named: arm00" in subtitle(figure)
    few = make_study(arms[:8], seeds=1)
    (plot,) = plots(draw(["time_accuracy"], few, make_results(few))[0])
    assert len(rows(plot, "text")) == 8


def test_a_run_whose_times_are_not_known_from_the_first_epoch_on_has_none():
    study = make_study(("a", "b"), seeds=1, epochs=3)

    def curve(arm, seed, epoch):
        return {"test_acc": 0.5} | ({} if arm == "b" and epoch == 2 else {"train_seconds": 1.0})

    data = time_data(study, make_results(study, curve))
    assert [(arm.arm, len(arm.points)) for arm in data.arms] == [("a", 3), ("b", 1)]
    with pytest.raises(ReportError, match="no finished trial has recorded `train_seconds`"):
        time_data(study, make_results(study, lambda arm, seed, epoch: {"test_acc": 0.5}))


def test_another_metric_and_a_logarithmic_axis_of_time():
    study = make_study(("a", "b"))
    options = ChartOptions(measure="train_loss", log=True)
    (figure,) = draw(["time_accuracy"], study, make_results(study), options=options)
    axis = plots(figure)[0]["layer"][1]["encoding"]
    assert (axis["x"]["scale"]["type"], axis["y"]["title"]) == ("log", "Training loss")
    with pytest.raises(ReportError, match="`train_seconds` is a time itself"):
        draw(["time_accuracy"], study, make_results(study), options=ChartOptions(measure="train_seconds"))
