"""Seeds as small plots."""

import pytest

from builders import learning, make_results, make_study
from fairtrial.report.chart_options import ChartOptions
from fairtrial.report.charts import draw
from fairtrial.trial import Outcome
from report.charts.drawings import plots, rows, subtitle


def test_each_seed_has_a_line_and_the_mean_one():
    study = make_study(("a", "b"), seeds=3, epochs=4)
    (figure,) = draw(["seeds"], study, make_results(study))
    assert figure.data.metric == "test_acc"
    _, second = plots(figure)
    assert (second["title"]["text"], second["title"]["subtitle"]) == ("b", ["3 seeds"])
    thin = {(row["seed"], row["epoch"]): row["y"] for row in rows(second, "line", strokeWidth=0.9)}
    assert thin == pytest.approx(
        {(seed, epoch): 100 * learning("b", seed, epoch)["test_acc"] for seed in range(3) for epoch in range(1, 5)}
    )
    assert [row["epoch"] for row in rows(second, "line", style="ink")] == [1, 2, 3, 4]
    assert not rows(second, "area")


def test_a_lost_seed_ends_in_a_cross_and_is_counted():
    study = make_study(("a", "b"), seeds=3, epochs=4)
    results = make_results(study, ended={("b", 1): Outcome.DIVERGED}, epochs={("b", 1): 2})
    (figure,) = draw(["seeds"], study, results)
    second = plots(figure)[1]
    assert second["title"]["subtitle"] == ["2 seeds, 1 of 3 diverged"]
    crosses = [
        row for layer in second["layer"] if str(layer["mark"].get("shape")).startswith("M") for row in layer["rows"]
    ]
    assert [(row["seed"], row["epoch"]) for row in crosses] == [(1, 2)]


def test_the_metric_is_that_of_the_study_or_another():
    study = make_study(("a", "b"), evidence={"metric": "final_train_loss"})
    results = make_results(study)
    (figure,) = draw(["seeds"], study, results)
    assert figure.data.metric == "train_loss"
    for measure in ("best_test_loss", "test_loss"):
        (figure,) = draw(["seeds"], study, results, options=ChartOptions(measure=measure))
        assert (figure.data.metric, figure.title) == ("test_loss", "Test loss: each seed")


@pytest.mark.parametrize("number", [1, 2, 12, 30])
def test_any_number_of_arms(number):
    study = make_study([f"arm{at}" for at in range(number)], seeds=2)
    (figure,) = draw(["seeds"], study, make_results(study))
    assert len(plots(figure)) == min(number, 24)
    assert ("Not drawn: 6 more arms" in subtitle(figure)) == (number == 30)


def test_one_epoch_is_a_row_for_each_arm():
    study = make_study(("a", "b"), seeds=2, epochs=1)
    (plot,) = plots(draw(["seeds"], study, make_results(study))[0])
    assert len(rows(plot, "point", filled=False)) == 4
