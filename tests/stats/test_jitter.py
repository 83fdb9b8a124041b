"""Jitter within runs and differences between runs: known variances come back, intervals hold, verdicts say it."""

import numpy as np
import pytest

from builders import make_results, make_study
from fairtrial.report.verdicts import verdict_table
from fairtrial.stats.comparison import compare
from fairtrial.stats.jitter import split_variance


def differences(random, *, arms, seeds, evaluations, between, within):
    """Paired differences of runs with a trend; the standard deviations are those of a difference."""

    def runs(number):
        return (
            random.normal(0.0, between / 2**0.5, size=(number, seeds, 1))
            + random.normal(0.0, within / 2**0.5, size=(number, seeds, evaluations))
            + np.linspace(0.0, 0.02, evaluations)
        )

    return runs(arms) - runs(1)


@pytest.mark.parametrize(("between", "within"), [(0.006, 0.012), (0.012, 0.006), (0.01, 0.01)])
def test_known_variances_come_back(between, within):
    random = np.random.default_rng(1)
    found = split_variance(differences(random, arms=1, seeds=20000, evaluations=3, between=between, within=within))
    assert found.within == pytest.approx(within, rel=0.02)
    assert found.between == pytest.approx(between, rel=0.05)
    assert found.share == pytest.approx(within**2 / (within**2 + between**2), abs=0.02)
    assert found.interval[0] < found.share < found.interval[1]
    assert found.variance(3) == pytest.approx(between**2 + within**2 / 3, rel=0.05)


@pytest.mark.parametrize("arms", [1, 4])
def test_the_interval_of_the_share_holds_its_95_percent(arms):
    """Of 2,000 studies 5% miss, with a standard error of 0.5 points; four standard errors are allowed."""
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(2000):
        low, high = split_variance(
            differences(random, arms=arms, seeds=7, evaluations=3, between=0.007, within=0.01)
        ).interval
        hits += low <= 100 / 149 <= high
    assert hits / 2000 >= 0.93


def test_runs_without_a_number_have_no_part():
    table = differences(np.random.default_rng(3), arms=2, seeds=9, evaluations=3, between=0.01, within=0.01)
    table[1, 4:] = np.nan
    table[0, 8, 1] = np.nan
    alone = [table[0, :8], table[1, :4]]
    squares = sum(((rows - rows.mean(axis=0)).mean(axis=1) ** 2).sum() for rows in alone)
    found = split_variance(table)
    assert found.variance(3) == pytest.approx(squares / (7 + 3))


def test_too_few_runs_say_nothing_and_neither_do_runs_without_jitter():
    random = np.random.default_rng(4)
    assert split_variance(differences(random, arms=1, seeds=4, evaluations=3, between=0.01, within=0.01)) is None
    assert split_variance(np.zeros((0, 5, 3))) is None
    assert split_variance(np.broadcast_to(random.normal(size=(1, 8, 1)), (1, 8, 3))) is None


def curve(between, within, *, evaluations=1):
    """Metrics of made-up runs: what an arm and seed differ by, and what an evaluation does."""

    def metrics(arm, seed, epoch):
        random = np.random.default_rng([ord(arm), seed])
        run, jitter = random.normal(0.0, between), random.normal(0.0, within, size=(10, evaluations))
        values = 0.5 + 0.03 * epoch + run + jitter[epoch - 1]
        early = {f"eval{number}_test_acc": value for number, value in enumerate(values[:-1], start=1)}
        return {"test_acc": values[-1]} | (early if epoch == 10 else {})

    return metrics


def verdict(metric, epochs=10, evaluations=1, between=0.002, within=0.01):
    sections = {"training": {"evaluations_last_epoch": evaluations}, "evidence": {"metric": metric}}
    study = make_study(("a", "b", "c"), seeds=12, epochs=epochs, **sections)
    results = make_results(study, curve(between, within, evaluations=evaluations))
    return compare(study, results)


def test_a_verdict_says_how_much_is_jitter_and_what_would_be_steadier():
    data = verdict("final_test_acc")
    *_, split, advice = data.caveats
    assert split.startswith(f"About {data.jitter.split.share:.0%} (95% interval ")
    assert split.endswith(
        "test_acc at the end is jitter within runs, from one epoch to the next; the rest is between runs."
    )
    assert advice.startswith("For a next study: mean_last3_test_acc would need about 0.")
    assert advice.endswith("(mean_last_epoch_test_acc) ask less. This study keeps the measure that it set.")
    assert data.jitter.seeds_ratio == pytest.approx(0.36, abs=0.1)  # (0.002^2 + 0.01^2 / 3) / (0.002^2 + 0.01^2)
    table = verdict_table(data)["jitter"]
    assert table["steadier"] == "mean_last3_test_acc"
    assert set(table["split"]) == {"within", "between", "share", "interval"}


def test_evaluations_within_the_last_epoch_are_taken_where_there_are_any():
    data = verdict("final_test_acc", evaluations=5)
    assert (data.jitter.evaluations, data.jitter.within_epoch) == (5, True)
    assert data.jitter.steadier == "mean_last_epoch_test_acc"
    assert "between evaluations within the last epoch" in data.caveats[-2]
    own = verdict("mean_last_epoch_test_acc", evaluations=5)
    assert own.jitter.seeds_ratio == 1.0


def test_an_identical_arm_does_not_dilute_jitter():
    studies = [make_study(arms, seeds=12, epochs=10, evidence={"metric": "final_test_acc"}) for arms in ("ab", "abc")]
    records = curve(0.002, 0.01)
    alone, with_twin = (
        compare(study, make_results(study, lambda arm, seed, epoch: records(arm.replace("c", "a"), seed, epoch)))
        for study in studies
    )
    assert with_twin.jitter == alone.jitter


def test_no_advice_where_runs_differ_more_than_they_jitter():
    data = verdict("final_test_acc", between=0.01, within=0.002)
    assert data.jitter.seeds_ratio > 0.9
    assert not any("For a next study" in line for line in data.caveats)


def test_the_best_epochs_own_spread_is_what_an_average_is_compared_with():
    data = verdict("best_test_acc")
    pairs = [row.sd**2 for row in data.comparisons]
    assert data.jitter.seeds_ratio == pytest.approx(data.jitter.split.variance(3) / np.mean(pairs))


@pytest.mark.parametrize(("metric", "epochs"), [("final_test_acc", 3), ("generalization_gap", 10), ("seconds", 10)])
def test_nothing_is_said_where_it_can_not_be_known(metric, epochs):
    study = make_study(("a", "b", "c"), seeds=12, epochs=epochs, evidence={"metric": metric})
    records = curve(0.002, 0.01)
    rows = make_results(
        study, lambda *key: records(*key) | {"train_acc": 0.5 + key[1] / 99, "train_seconds": 1.0 + key[1]}
    )
    data = compare(study, rows)
    assert data.jitter is None
    assert not any("jitter" in line for line in data.caveats)
    assert verdict_table(data)["jitter"] is None
