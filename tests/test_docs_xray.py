"""That docs/xray.md says of the paper what its records say."""

from pathlib import Path

import pandas as pd
import pytest

from fairtrial.report.words import percent

DOCS = Path(__file__).parents[1] / "docs"
STEPS = 782  # an epoch
ARMS = ("baseline", "low_beta2", "large_eps")


@pytest.fixture(scope="module")
def page():
    return " ".join((DOCS / "xray.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def records():
    return pd.read_parquet(DOCS / "xray.parquet")


@pytest.fixture(scope="module")
def overall(records):
    return records[records["scope"] == "overall"].set_index(["arm", "step"]).sort_index()


@pytest.fixture(scope="module")
def epochs(overall):
    """How many epochs each arm has."""
    return {arm: max(overall.loc[arm].index) // STEPS for arm in ARMS}


def ratios(overall, arm, epochs):
    name = "update_rms_over_lr"
    return [overall.loc[arm, e * STEPS][name] / overall.loc["baseline", e * STEPS][name] for e in range(1, epochs + 1)]


def test_it_says_how_far_the_trials_are(page, epochs, records):
    assert ", ".join(f"{arm} {number}" for arm, number in epochs.items()) in page
    assert set(records["seed"]) == {0}
    assert set(records["scope"]) == {"overall", "kind"}


def test_claim_5(page, overall, epochs):
    own, common = overall.loc["large_eps"], min(epochs.values())
    assert f"exceeds 10% of sqrt(vhat) in {percent(own.loc[1]['eps_over_10pct'])} of the weights" in page
    late = own.loc[STEPS:]
    assert f"in at most {percent(late['eps_over_10pct'].max())}, and 1% of it in at most" in page
    assert f"and 1% of it in at most {percent(late['eps_over_1pct'].max())}" in page
    assert late["eps_over_10pct"].max() < 0.05  # what "can hardly slow this model down" rests on
    found = ratios(overall, "large_eps", common)
    assert f"Steps are {min(found):.2f} to {max(found):.2f} times the baseline's" in page
    assert set(own["eps"]) == {1e-6}


def test_claim_3(page, overall, epochs):
    common = min(epochs.values())
    found = ratios(overall, "low_beta2", common)
    assert f"its steps are {min(found):.2f} to {max(found):.2f} times the baseline's" in page
    assert min(found) > 1
    low, base = (10 ** overall.loc[arm, STEPS]["log10_sqrt_vhat_p50"] for arm in ("low_beta2", "baseline"))
    assert f"median sqrt(vhat) is {low:.1e}, against {base:.1e} for the baseline" in page
    for name in ("train_loss", "test_loss"):
        low, base = (overall.loc[arm, common * STEPS][name] for arm in ("low_beta2", "baseline"))
        assert f"{low:.3f}" in page
        assert f"(baseline {base:.3f})" in page


def test_weights_without_a_gradient(page, overall, records):
    depthwise = records[(records["scope"] == "kind") & (records["part"] == "depthwise convolution")]
    whole, own = percent(overall["no_gradient"].max()), percent(depthwise["no_gradient"].max())
    assert f"{whole} of the weights never had a gradient, {own} of those in depthwise convolutions" in page
