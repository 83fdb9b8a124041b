"""Explanations against independent arithmetic, and against Adam's two conventions as they train."""

import math
from fractions import Fraction

import pytest
import torch

from fairtrial.errors import StudyError
from fairtrial.explain import adam_step, averages_of, explain
from fairtrial.loading import load
from fairtrial.registry import OPTIMIZERS
from fairtrial.report.explained import explanation_text
from fairtrial.spec import Study
from fairtrial.training.optimizers.adam import Adam


def study(arms, **more):
    return Study(name="s", reference=next(iter(arms)), arms=arms, **more)


@pytest.mark.parametrize("step", [1, 10, 782, 7820])
@pytest.mark.parametrize("betas", [("0.9", "0.999"), ("0.99", "0.9999"), ("0", "0.5")])
def test_corrections_are_exact(step, betas):
    first, second = (1 / (1 - Fraction(beta) ** step) for beta in betas)
    found = adam_step(step, tuple(map(float, betas)), 1e-8, "torch")
    assert found.first == pytest.approx(float(first), rel=1e-9)
    assert found.second == pytest.approx(float(second), rel=1e-9)
    assert found.torch_eps == 1e-8
    assert found.keras_eps == pytest.approx(1e-8 / math.sqrt(second), rel=1e-8)
    read = adam_step(step, tuple(map(float, betas)), 1e-8, "keras")
    assert read.keras_eps == 1e-8
    assert read.torch_eps == pytest.approx(1e-8 * math.sqrt(second), rel=1e-8)


@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_the_other_conventions_epsilon_makes_the_same_step(convention):
    """At the first step, where the conventions differ most, with a gradient as small as epsilon."""
    other = {"torch": "keras", "keras": "torch"}[convention]
    at = adam_step(1, (0.9, 0.999), 1e-6, convention)
    ends = []
    for eps, kind in ((1e-6, convention), (at.keras_eps if other == "keras" else at.torch_eps, other)):
        weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        weight.grad = torch.tensor([1e-7, 1e-6, 1.0], dtype=torch.float64)
        Adam(eps=eps, eps_convention=kind).build([weight]).step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-7, atol=0.0)


def test_a_horizon_is_where_a_gradients_weight_has_fallen_to_37_percent():
    for average in averages_of(Adam(betas=(0.95, 0.9999))):
        assert average.decay**average.horizon == pytest.approx(1 / math.e, rel=0.03)
        assert average.decay**average.full_after <= 0.01 < average.decay ** (average.full_after - 1)


def test_only_decays_are_averages():
    sgd, rmsprop = OPTIMIZERS.get("sgd"), OPTIMIZERS.get("rmsprop")
    assert averages_of(sgd()) == ()
    assert [one.key for one in averages_of(sgd(momentum=0.9))] == ["momentum"]
    assert [(one.key, one.of) for one in averages_of(rmsprop())] == [("alpha", "squared gradients")]


def test_arms_that_share_optimizer_and_steps_are_explained_together():
    arms = {"a": {}, "b": {"optimizer": {"eps": 1e-6}}, "c": {"schedule": {"name": "cosine"}, "label": "C"}}
    first, second = explain(study(arms))
    assert (first.arms, second.arms) == (("a", "C"), ("b",))
    assert [rates.arms for rates in first.rates] == [("a",), ("C",)]
    assert [step.step for step in first.adam] == [1, 10, 100, 782, 7820]


def test_the_paper_arm_of_very_high_smoothing_never_has_a_full_average():
    arm = explain(load("paper"))[-1]
    assert arm.arms == ("very_high_smoothing",)
    assert arm.averages[1].full_after > arm.steps == 7820


def test_rates_are_those_of_the_schedule():
    [one] = explain(study({"a": {}}, schedule={"name": "onecycle"}, optimizer={"lr": 0.5}))
    [rates] = one.rates
    assert (rates.first, rates.highest, rates.highest_at) == (pytest.approx(0.02), 0.5, 2346)
    assert rates.last == pytest.approx(0.5 / 25 / 1e4)


def test_a_loop_of_the_users_own_needs_the_number_of_steps():
    mine = study({"a": {}}, training={"loop": "fairtrial.testing:simulate", "epochs": 4})
    with pytest.raises(StudyError) as caught:
        explain(mine)
    assert str(caught.value) == (
        "fairtrial.testing:simulate: how many steps an epoch has is unknown here; give --steps N"
    )
    [one] = explain(mine, 50)
    assert (one.steps, [step.step for step in one.adam]) == (200, [1, 10, 50, 200])


def test_steps_that_are_known_are_not_given():
    with pytest.raises(StudyError, match=r"^--steps 50: not needed, the data and training.batch_size of s tell$"):
        explain(study({"a": {}}), 50)
    arms = {"a": {}, "b": {"training": {"loop": "fairtrial.testing:simulate"}}}
    assert [one.steps_per_epoch for one in explain(study(arms), 50)] == [782, 50]


def test_an_alpha_that_is_no_decay_is_no_average():
    assert not averages_of(OPTIMIZERS.get("asgd")())
    assert [one.key for one in averages_of(OPTIMIZERS.get("rmsprop")())] == ["alpha"]


def test_muons_momentum_averages_gradients():
    """Its steps do not add up: each is scaled by itself."""
    text = explanation_text(muon := study({"a": {"optimizer": {"name": "muon"}}}), explain(muon), 200)
    assert "momentum = 0.95: average of gradients, over about 20 steps" in text


def test_the_step_with_the_highest_rate_of_a_training_too_long_to_look_at_every_step():
    training, schedule = {"epochs": 20, "batch_size": 50}, {"name": "cosine", "warmup_epochs": 1}
    (found,) = explain(study({"a": {}}, training=training, schedule=schedule))
    assert (found.steps, found.rates[0].highest, found.rates[0].highest_at) == (20_000, 1e-3, 1_000)
