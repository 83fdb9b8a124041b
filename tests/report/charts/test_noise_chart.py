"""Noise within runs and between them."""

import numpy as np
import pytest

from builders import make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.charts import draw
from fairtrial.report.charts.noise import POOLED, noise_data
from fairtrial.stats.jitter import split_variance
from report.charts.drawings import plots, rows

EPOCHS, SEEDS = 6, 12


def made(within=0.004, between=0.01):
    """Runs whose two standard deviations are known, and the values of the last three epochs."""
    random = np.random.default_rng(0)
    study = make_study(("a", "b"), seeds=SEEDS, epochs=EPOCHS)
    runs = {(arm, seed): 0.8 + between * random.normal() for arm in "ab" for seed in range(SEEDS)}
    values = {key: run + within * random.normal(size=EPOCHS) for key, run in runs.items()}
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": float(values[arm, seed][epoch - 1])})
    return study, results, values


def test_the_standard_deviations_are_those_of_the_model():
    study, results, values = made()
    data = noise_data(study, results)
    assert (data.evaluations, data.within_epoch, [one.arm for one in data.arms]) == (3, False, [POOLED, "a", "b"])
    pooled = data.arms[0].split
    assert pooled.within == pytest.approx(0.004, rel=0.25)
    assert pooled.between == pytest.approx(0.01, rel=0.35)
    table = np.array([values["a", seed][-3:] for seed in range(SEEDS)])
    assert data.arms[1].split == split_variance(table[None])
    # The mean square within runs, by hand: the rest of a two-way layout without interaction.
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    assert data.arms[1].split.within == pytest.approx(np.sqrt((rest**2).sum() / ((SEEDS - 1) * 2)))


def test_both_are_drawn_in_points_with_the_share_in_words():
    study, results, _ = made()
    (figure,) = draw(["noise"], study, results)
    (plot,) = plots(figure)
    split = figure.data.arms[1].split
    drawn = {row["part"]: row["x"] for row in rows(plot, "point") if row["arm"] == "a"}
    assert drawn == pytest.approx({"within a run": 100 * split.within, "between runs": 100 * split.between})
    words = {row["arm"]: row["words"] for row in rows(plot, "text")}
    assert words["a"].startswith(f"{split.share:.0%} within runs (")
    assert "all arms together: within a run 0." in figure.alt


def test_parts_between_runs_that_a_design_tells_apart():
    study = make_study(("a", "b"), seeds=4, noise={"initial_weights": 2, "batch_orders": 2})
    (figure,) = draw(["noise"], study, make_results(study))
    parts = {row["part"] for row in rows(plots(figure)[0], "point")}
    assert {"initial weights", "batch order"} <= parts


def test_few_runs_tell_nothing():
    study = make_study(("a", "b"), seeds=2, epochs=6)
    with pytest.raises(ReportError, match="too few runs, or evaluations at their ends"):
        draw(["noise"], study, make_results(study))
