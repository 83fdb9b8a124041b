"""That docs/precision says what its records say."""

from pathlib import Path

import pandas as pd
import pytest

import fairtrial

DOCS = Path(__file__).parents[1] / "docs" / "precision"
ACCURACY, LOSS = "recalibrated_test_acc", "recalibrated_train_loss"


@pytest.fixture(scope="module")
def page():
    return " ".join((DOCS / "README.md").read_text(encoding="utf-8").split())


def records_of(name):
    """The last epochs of a study that the folder has, by seed and arm."""
    study = fairtrial.load(DOCS / name)
    records = pd.read_parquet(DOCS / "records.parquet")
    own = records[records["hash"].str[:8] == study.label.partition("@")[2]]
    last = own[own["epoch"] == study.settings.training.epochs]
    return study, last.set_index(["seed", "arm"])[[ACCURACY, LOSS]].unstack("arm")


@pytest.mark.parametrize(("measure", "unit", "digits"), [(ACCURACY, 100, 2), (LOSS, 1, 4)])
def test_the_verdicts_are_those_of_the_records(page, measure, unit, digits):
    study, values = records_of("one-epoch.toml")
    assert len(values.dropna()) == 12
    margin = study.evidence.margin if measure == ACCURACY else study.evidence.also[0].margin
    differences = (values[measure]["bf16"] - values[measure]["float32"]).to_numpy()[:, None]
    [found] = fairtrial.judge(differences, margin=margin, looks=range(4, 13), alpha=0.05 / 2)
    mean, low, high = (f"{unit * one:.{digits}f}" for one in (differences.mean(), *found.interval))
    of_arms = [
        f"{unit * values[measure][arm].mean():.{digits if unit > 1 else 3}f} ± "
        f"{unit * values[measure][arm].std():.{digits if unit > 1 else 3}f}"
        for arm in ("float32", "bf16")
    ]
    row = f"| {' | '.join(of_arms)} | {mean} | {low} to {high} | {found.p_adjusted:.3f} | {found.verdict} |"
    assert row in page
    if measure == ACCURACY:
        worse = f"({mean[1:]} points worse so far, 97.5% interval {-100 * found.interval[1]:.2f} to {low[1:]})"
        assert f"bf16: {found.verdict} {worse}" in page
        assert f"bf16 is {mean[1:]} points of test accuracy behind float32 ({-100 * found.interval[1]:.2f} to" in page
    else:
        assert f"a training loss that is {mean} higher ({low} to {high})" in page


def test_what_there_is_of_two_epochs(page):
    study, values = records_of("precision.toml")
    whole = values.dropna()
    assert len(whole) == 3 < study.to_dict()["seeds"]["min"]
    accuracy, loss = ((whole[name]["bf16"] - whole[name]["float32"]).mean() for name in (ACCURACY, LOSS))
    assert (
        f"bf16 {-100 * accuracy:.2f} points behind on average, with a training loss that is {loss:.4f} higher" in page
    )


def test_gradients_at_equal_weights(page):
    looks = pd.read_csv(DOCS / "same-weights.csv")
    mean = looks.groupby("step").mean()
    assert list(mean.index) == [0, 50, 200]
    for row, name in (
        ("float32, fairtrial's layers", "float32"),
        ("float32, pixels rounded to bfloat16", "rounded_pixels"),
        ("bf16", "bf16"),
        ("float32, another batch", "another_batch"),
    ):
        assert f"| {row} | " + " | ".join(f"{value:.3f}" for value in mean[f"cosine_{name}"]) + " |" in page
    first, last = mean.loc[0], mean.loc[200]
    assert f"a cosine of {first['cosine_bf16']:.2f} with the exact one before training, and of" in page
    assert f"and of {last['cosine_bf16']:.2f} after 200 steps" in page
    pixels = first["cosine_rounded_pixels"], last["cosine_rounded_pixels"]
    assert "gives {:.2f} and {:.2f}.".format(*pixels) in page
    errors, batches = mean["error_bf16"], mean["error_another_batch"]
    assert f"up to {errors.max():.2f} times" in page
    assert f"{batches.min():.2f} to {batches.max():.2f} times" in page
    assert (errors < batches).all()


def test_evaluations_at_equal_weights(page):
    looks = pd.read_csv(DOCS / "same-weights.csv")
    apart = 100 * (looks["test_acc_bf16"] - looks["test_acc_float32"])
    assert f"at most {apart.abs().max():.2f} points at one look, by {apart.mean():.2f} on average" in page
    losses = (looks["test_loss_bf16"] - looks["test_loss_float32"]).abs()
    assert f"the test loss by at most {losses.max():.3f}." in page


def test_times(page):
    times = pd.read_csv(DOCS / "steps.csv").pivot(index="kind", columns="instructions", values="step_ms")
    for kind, row in times[["all", "AVX512_CORE", "AVX2"]].iterrows():
        assert f"| {kind} | " + " | ".join(f"{value:.0f}" for value in row) + " |" in page
    bf16 = times.loc["bf16"]
    assert f"A step in bf16 takes {bf16['all']:.0f} ms, one in float32" in page
    assert f"fairtrial's layers {times['all']['float32']:.0f} ms." in page
    assert f"AVX-512 alone | yes, {bf16['AVX512_CORE'] / bf16['all'] - 1:.0%} slower" in page
