"""That docs/xray.md says of the paper what its records say."""

from pathlib import Path

import pandas as pd
import pytest

from fairtrial.report.words import percent

DOCS = Path(__file__).parents[1] / "docs"
STEPS = 782  # an epoch
ARMS = ("baseline", "high_beta1", "low_beta2", "large_eps", "very_high_smoothing")


@pytest.fixture(scope="module")
def page():
    return " ".join((DOCS / "xray.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def records():
    return pd.read_parquet(DOCS / "xray.parquet")


@pytest.fixture(scope="module")
def overall(records):
    return records[records["scope"] == "overall"].set_index(["arm", "step"]).sort_index()


def steps(overall, arm, epochs=range(1, 11)):
    """The least and the most of an arm's steps as times the baseline's, after some epochs."""
    name = "update_rms_over_lr"
    found = [overall.loc[arm, e * STEPS][name] / overall.loc["baseline", e * STEPS][name] for e in epochs]
    return f"{min(found):.2f} to {max(found):.2f}"


def test_it_is_the_whole_study_of_one_seed(records):
    assert set(records["seed"]) == {0}
    assert set(records["scope"]) == {"overall", "kind"}
    assert set(records["arm"]) == set(ARMS)
    assert set(records.groupby("arm")["step"].max()) == {10 * STEPS}


def test_claim_5(page, overall):
    own = overall.loc["large_eps"]
    assert set(own["eps"]) == {1e-6}
    first, one, last = (own.loc[step] for step in (1, STEPS, 10 * STEPS))
    assert f"exceeds 10% of sqrt(vhat) in {percent(first['eps_over_10pct'])} of the weights" in page
    assert f"after epoch 1 in {percent(one['eps_over_10pct'])}, and" in page
    assert f"more and more: {percent(last['eps_over_10pct'])} after epoch 10" in page
    assert f"it is in {percent(last['eps_over_1pct'])} of the weights after epoch 10" in page
    assert f"by half or more in {percent(last['eps_over_100pct'])}." in page
    assert own["eps_over_10pct"].loc[STEPS:].is_monotonic_increasing
    assert f"arm's steps are {steps(overall, 'large_eps')} times the baseline's" in page
    losses = [overall.loc[arm, 10 * STEPS]["train_loss"] for arm in ("large_eps", "baseline")]
    assert "training loss after epoch 10 is {:.3f} (baseline {:.3f})".format(*losses) in page


def test_claim_3(page, overall):
    early, late = (steps(overall, "low_beta2", epochs) for epochs in (range(1, 6), range(6, 11)))
    assert f"its steps are {early} times the baseline's at the ends of the first five epochs, and {late} times" in page
    low, base = (10 ** overall.loc[arm, STEPS]["log10_sqrt_vhat_p50"] for arm in ("low_beta2", "baseline"))
    assert f"median sqrt(vhat) is {low:.1e}, against {base:.1e} for the baseline" in page
    losses = {arm: overall.loc[arm, 10 * STEPS]["train_loss"] for arm in ARMS}
    assert min(losses, key=losses.__getitem__) == "low_beta2"
    for arm, loss in losses.items():
        times = "1" if arm == "baseline" else steps(overall, arm)
        assert f"| {arm} | {times} | {loss:.3f} |" in page


def test_second_moments_that_vanish(page, overall):
    low, base = (percent(overall.loc[arm, 10 * STEPS]["eps_over_100pct"]) for arm in ("low_beta2", "baseline"))
    assert f"above sqrt(vhat) in {low} of low beta2's weights, against {base} of the baseline's" in page


def test_weights_without_a_gradient(page, overall, records):
    depthwise = records[(records["scope"] == "kind") & (records["part"] == "depthwise convolution")]
    whole, own = percent(overall["no_gradient"].max()), percent(depthwise["no_gradient"].max())
    assert f"{whole} of the weights never had a gradient, {own} of those in depthwise convolutions" in page
