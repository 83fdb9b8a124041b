"""The x-ray in words, tables and documents."""

import csv
import io
import json
from dataclasses import replace

import pytest

from builders import make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.views import View
from fairtrial.report.xray import ArmXray, Moment, epsilon_in_words, memory_in_words, number, steps_in_words, xray_of
from fairtrial.results import StudyResults
from fairtrial.spec import Study
from fairtrial.trial import Snapshot

LENGTH = 782


def snapshot(trial, step, **overall):
    """A snapshot of a trial whose epochs have `LENGTH` steps."""
    epoch = -(-step // LENGTH)
    numbers = {"lr": 0.001, "eps": 1e-8, "beta1": 0.9, "beta2": 0.999, "eps_over_1pct": 0.2, "eps_over_10pct": 0.01}
    numbers |= {"eps_over_100pct": 0.0, "update_rms_over_lr": 0.1, "update_over_weight": 0.001, "signal": 0.1}
    numbers |= {f"log10_sqrt_vhat_p{each}": -4 + each / 50 for each in (5, 25, 50, 75, 95)} | {"cosine": 0.02}
    numbers |= {
        "coordinates": 1000.0,
        "no_gradient": 0.012,
        "train_loss": 2 / epoch,
        "test_loss": 2.1 / epoch,
    } | overall
    kinds = {"linear": numbers, "depthwise convolution": numbers | {"no_gradient": 0.404}}
    return Snapshot(trial.arm, trial.seed, epoch, step, numbers, kinds, {}, () if step > 1 else ("no average yet",))


def xrayed(study, overall=lambda arm, seed, step: {}, steps=(1, 50, LENGTH, 2 * LENGTH, 4 * LENGTH), arms=None):
    return [
        one
        if arms is not None and one.arm not in arms
        else replace(one, snapshots=tuple(snapshot(one, step, **overall(one.arm, one.seed, step)) for step in steps))
        for one in make_results(study)
    ]


@pytest.fixture
def study():
    return make_study(("baseline", "large_eps", "sgd"))


def moment(epoch, **overall):
    return Moment(epoch, epoch * LENGTH, float(epoch), True, 1, overall, {})


@pytest.mark.parametrize(
    ("shares", "halved", "meaning"),
    [
        ((0.031, 0.002), 0.0, "it can hardly slow this model down (at most 5% of coordinates at every epoch's end)"),
        ((0.05, 0.05), 0.01, "it can hardly slow this model down (at most 5% of coordinates at every epoch's end)"),
        ((0.051, 0.002), 0.01, "it shortens the step by more than 9% there, and by half or more in 1% at worst"),
        ((0.9, 0.8), 0.25, "it at least halves the step of 25% of them at worst: it rules this optimizer"),
    ],
)
def test_what_epsilon_means_follows_from_named_thresholds(shares, halved, meaning):
    numbers = [
        {"eps": 1e-6, "eps_over_10pct": share, "eps_over_100pct": part}
        for share, part in zip(shares, (halved, 0.0), strict=True)
    ]
    own = ArmXray("large_eps", (moment(1, **numbers[0]), moment(10, **numbers[1])))
    said = epsilon_in_words(own)
    assert said.startswith("epsilon 1e-6 exceeds 10% of sqrt(vhat) in ")
    assert said.endswith(f": {meaning}")
    assert "after epoch 1, " in said
    assert epsilon_in_words(ArmXray("sgd", (moment(1, update_rms_over_lr=1.0),))) == ""


def test_steps_are_compared_with_the_references_after_the_same_epoch():
    own = ArmXray(
        "low_beta2", (moment(1, update_rms_over_lr=0.23, lr=0.01), moment(2, update_rms_over_lr=0.3, lr=0.01))
    )
    reference = ArmXray("baseline", (moment(1, update_rms_over_lr=0.13, lr=0.01),))
    assert steps_in_words(own, reference) == (
        "a step changes a weight by 0.23 learning rates after epoch 1, 0.3 after epoch 2 (root mean square), 1.8 times "
        "baseline's after epoch 1"
    )
    alike = ArmXray("b", (moment(1, update_rms_over_lr=0.14, lr=0.01),))
    assert steps_in_words(alike, reference).endswith("within 10% of baseline's after epoch 1")
    assert "baseline's" not in steps_in_words(reference, reference)
    assert steps_in_words(ArmXray("x", (moment(1, eps=1.0),)), reference) == ""


def test_steps_of_different_learning_rates_are_compared_with_these():
    """Else steps that differ by 100 would be called alike."""
    reference = ArmXray("x0.001", (moment(1, update_rms_over_lr=0.1, lr=0.001),))
    large = ArmXray("x0.1", (moment(1, update_rms_over_lr=0.095, lr=0.1),))
    assert steps_in_words(large, reference) == (
        "a step changes a weight by 0.095 learning rates after epoch 1 (root mean square); at its learning rate of 0.1 "
        "that is 95 times x0.001's after epoch 1"
    )
    unknown = ArmXray("groups", (moment(1, update_rms_over_lr=0.1),))
    for own, other in ((unknown, reference), (large, unknown)):
        assert steps_in_words(own, other).endswith("after epoch 1 (root mean square)")


def test_how_far_the_betas_reach_back():
    own = ArmXray("a", (moment(1, beta1=0.9, beta2=0.99, cosine=0.02), moment(2, beta1=0.9, beta2=0.99, cosine=0.04)))
    assert memory_in_words(own) == (
        "beta1 = 0.9 averages the gradient over about 10 steps; beta2 = 0.99 averages its square over about 100 steps; "
        "a fresh gradient is mostly noise beside that average (mean cosine 0.03: within 0.1 of 0)"
    )
    assert "partly in the same direction" in memory_in_words(ArmXray("a", (moment(1, beta1=0.9, cosine=0.5),)))
    for cosine, said in (
        (-0.09, "is mostly noise"),
        (-0.1, "points against that average (mean cosine -0.1: -0.1 or less)"),
    ):
        assert f"a fresh gradient {said}" in memory_in_words(ArmXray("a", (moment(1, beta1=0.9, cosine=cosine),)))
    assert memory_in_words(ArmXray("a", (moment(1, beta1=0.9, cosine=-0.5),))).endswith(
        "steps overshoot and come back, an oscillation"
    )
    assert memory_in_words(ArmXray("sgd", (moment(1, update_rms_over_lr=1.0),))) == ""


def test_means_are_over_seeds(study):
    found = xray_of(study, xrayed(study, lambda arm, seed, step: {"update_rms_over_lr": 0.1 * (seed + 1)}))
    own = found.arm("baseline")
    assert [one.step for one in own.moments] == [1, 50, 782, 1564, 3128]
    assert [one.label for one in own.moments] == ["step 1", "step 50", "epoch 1", "epoch 2", "epoch 4"]
    assert [round(one.at, 3) for one in own.moments] == [0.001, 0.064, 1, 2, 4]
    assert own.last.overall["update_rms_over_lr"] == pytest.approx(0.2)
    assert own.last.seeds == 3
    assert own.notes == ("no average yet (at step 1)",)


def test_an_arm_that_stopped_within_its_first_epoch_has_no_end_of_an_epoch(study):
    results = [
        replace(one, epochs=(), outcome=None, snapshots=tuple(each for each in one.snapshots if each.step < LENGTH))
        if one.arm == "large_eps"
        else one
        for one in xrayed(study)
    ]
    found = xray_of(study, results)
    stopped = found.arm("large_eps")
    assert [(one.label, round(one.at, 3)) for one in stopped.moments] == [("step 1", 0.001), ("step 50", 0.064)]
    assert "after step 1, 1% after step 50" in epsilon_in_words(stopped)
    assert epsilon_in_words(stopped).endswith("(at most 5% of coordinates at every moment)")
    assert steps_in_words(stopped, found.arm("baseline")).endswith("within 10% of baseline's after step 50")


def test_epochs_of_different_lengths_end_where_their_last_snapshot_is(study):
    """Those of 120, 100 and 140 steps, as `tests/training/test_xray.py` has them: step 100 ends no epoch."""
    places = ((1, 100), (2, 220), (3, 340), (3, 360))
    results = [
        replace(one, snapshots=tuple(replace(snapshot(one, step), epoch=epoch) for epoch, step in places))
        for one in make_results(study)
    ]
    own = xray_of(study, results).arm("baseline")
    assert [one.label for one in own.moments] == ["step 100", "epoch 2", "step 340", "epoch 3"]
    assert [one.at for one in own.epochs] == [2.0, 3.0]
    assert 2 < own.moments[2].at < 3


def test_every_format_has_the_words_first(study):
    view = View(xray_of(study, xrayed(study, arms=["baseline", "large_eps"])))
    assert view.formats == ("text", "markdown", "latex", "html", "json", "csv")
    text = view.text(100)
    assert text.index("exceeds 10% of") < text.index("median")
    assert "1.2% of its weights never had a gradient (depthwise convolution: 40.4%)" in view.markdown()
    assert "Without an x-ray: sgd." in text
    assert "Means over 3 seeds." in text
    assert "toprule" in view.latex()
    assert "<table" in view.html()
    table = json.loads(view.json())
    assert [arm["arm"] for arm in table["arms"]] == ["baseline", "large_eps"]
    assert table["arms"][0]["moments"][0]["overall"]["eps_over_10pct"] == 0.01
    rows = list(csv.DictReader(io.StringIO(view.csv())))
    assert len(rows) == 2 * 5 * 3
    assert {row["kind"] for row in rows} == {"", "linear", "depthwise convolution"}


def test_one_arm_is_shown_at_all_its_moments(study):
    runs = StudyResults(study, tuple(xrayed(study)))
    all_arms, one = runs.xray().markdown(), runs.xray("large_eps").markdown()
    assert one.count("| large\\_eps | ") == 5 + 2
    assert all_arms.count("| large\\_eps | ") == 4 + 2
    assert "baseline" not in one
    with pytest.raises(ReportError, match=r'^arm "large_esp": did you mean `large_eps`\?'):
        runs.xray("large_esp")


def test_labels_are_for_people_and_names_for_programs():
    study = Study.from_dict(make_study(("a", "b")).to_dict() | {"name": "labeled"})
    table = study.to_dict()
    table["arms"]["b"]["label"] = "Large epsilon"
    study = Study.from_dict(table)
    view = StudyResults(study, tuple(xrayed(study))).xray("b")
    assert "Large epsilon:" in view.text()
    assert [arm["arm"] for arm in json.loads(view.json())["arms"]] == ["b"]


def test_the_noise_scale_says_at_how_many_moments_it_was_estimated(study):
    text = View(xray_of(study, xrayed(study, lambda arm, seed, step: {"noise_scale": float(step)}))).text(400)
    assert "gradient noise scale, estimated at 5 moments: 1 to 3,100 batches" in text


def test_without_snapshots_the_error_says_why(study):
    message = "its trials have no x-ray: it was run without one"
    with pytest.raises(ReportError, match=message):
        xray_of(study, make_results(study))
    with pytest.raises(ReportError, match="arm sgd has no x-ray"):
        xray_of(study, xrayed(study, arms=["baseline"]), 2)


def test_numbers_have_two_digits():
    assert [number(each) for each in (0.0, 0.0123, 118.3, 7571.0, 1.04, 1.234e-5, 3.2e7, -0.0456)] == [
        "0",
        "0.012",
        "120",
        "7,600",
        "1",
        "1.2e-5",
        "3.2e+07",
        "-0.046",
    ]


def test_what_has_no_second_moment_has_the_steps_alone(study):
    def plain(arm, seed, step):
        return {}

    results = xrayed(study, plain)
    bare = [
        replace(
            one,
            snapshots=tuple(
                replace(each, overall={"update_rms_over_lr": 1.0}, kinds={}, notes=("SGD keeps no exp_avg_sq",))
                for each in one.snapshots
            ),
        )
        for one in results
    ]
    text = View(xray_of(study, bare)).text(100)
    assert "epsilon" not in text.split("eps > 10%")[0]
    assert "SGD keeps no exp_avg_sq." in text
