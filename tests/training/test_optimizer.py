"""Optimizers against float64 NumPy readings of the paper's formulas, and schedules against closed forms."""

import math

import numpy as np
import pytest
import torch

from fairtrial import spec
from fairtrial.training.optimizer import build_optimizer, build_schedule, lr_factor

STEPS = 60


def gradients(seed=0, shape=(7, 5)):
    """Gradients over many orders of magnitude, so that epsilon matters in some entries and not in others."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) * 10.0 ** rng.uniform(-9, 1, size=shape) for _ in range(STEPS)]


def adam_as_the_paper_writes_it(theta, grads, lr, beta1, beta2, eps):
    """m, v, mhat, vhat and theta, line by line, with epsilon beside the corrected root."""
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(grads, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        mhat = m / (1 - beta1**t)
        vhat = v / (1 - beta2**t)
        theta = theta - lr * mhat / (np.sqrt(vhat) + eps)
    return theta


def adam_with_epsilon_hat(theta, grads, lr, beta1, beta2, eps):
    """Kingma & Ba, the end of section 2: epsilon beside the uncorrected root."""
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(grads, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        theta = theta - lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + eps)
    return theta


def run(settings, grads, dtype=torch.float64):
    parameter = torch.nn.Parameter(torch.ones(grads[0].shape, dtype=dtype))
    optimizer = build_optimizer(settings, [parameter])
    for grad in grads:
        parameter.grad = torch.tensor(grad, dtype=dtype)
        optimizer.step()
    return parameter.detach().numpy()


PAPERS_ARMS = [
    {"betas": (0.9, 0.999), "eps": 1e-8},
    {"betas": (0.95, 0.999), "eps": 1e-8},
    {"betas": (0.9, 0.99), "eps": 1e-8},
    {"betas": (0.9, 0.999), "eps": 1e-6},
    {"betas": (0.99, 0.9999), "eps": 1e-7},
    {"betas": (0.0, 0.0), "eps": 1e-3},
]


@pytest.mark.parametrize("arm", PAPERS_ARMS)
def test_adam_is_the_papers(arm):
    grads = gradients()
    expected = adam_as_the_paper_writes_it(np.ones((7, 5)), grads, 1e-3, *arm["betas"], arm["eps"])
    np.testing.assert_allclose(run(spec.Adam(lr=1e-3, **arm), grads), expected, rtol=1e-11)


@pytest.mark.parametrize("arm", PAPERS_ARMS)
def test_the_keras_convention_is_epsilon_hat(arm):
    grads = gradients()
    settings = spec.Adam(lr=1e-3, eps_convention="keras", **arm)
    expected = adam_with_epsilon_hat(np.ones((7, 5)), grads, 1e-3, *arm["betas"], arm["eps"])
    np.testing.assert_allclose(run(settings, grads), expected, rtol=1e-11)


def test_the_conventions_differ_where_it_matters():
    """With tiny gradients and the paper's large epsilon the two are other optimizers, so the tests above can fail."""
    grads = gradients()
    torch_way, keras_way = (run(spec.Adam(eps=1e-6, eps_convention=c), grads) for c in ("torch", "keras"))
    assert np.abs(torch_way - keras_way).max() > 1e-3


def test_float32_follows_float64():
    grads = gradients()
    expected = adam_as_the_paper_writes_it(np.ones((7, 5)), grads, 1e-3, 0.9, 0.999, 1e-8)
    np.testing.assert_allclose(run(spec.Adam(), grads, torch.float32), expected, rtol=1e-5)


def test_the_keras_convention_survives_a_saved_state():
    """The step count lives in the state dict, so a resumed run is the uninterrupted one."""
    settings, grads = spec.Adam(eps=1e-6, eps_convention="keras"), gradients()
    parameter = torch.nn.Parameter(torch.ones((7, 5), dtype=torch.float64))
    optimizer = build_optimizer(settings, [parameter])
    for step, grad in enumerate(grads):
        if step == STEPS // 2:
            state = optimizer.state_dict()
            optimizer = build_optimizer(settings, [parameter])
            optimizer.load_state_dict(state)
        parameter.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_array_equal(parameter.detach().numpy(), run(settings, grads))


def test_adamw_decays_apart_from_the_gradient():
    grads = gradients()
    theta, m, v = np.ones((7, 5)), np.zeros((7, 5)), np.zeros((7, 5))
    for t, g in enumerate(grads, start=1):
        theta = theta * (1 - 1e-3 * 0.1)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    settings = spec.AdamW(name="adamw", weight_decay=0.1)
    np.testing.assert_allclose(run(settings, grads), theta, rtol=1e-11)


def test_sgd_with_nesterov_momentum():
    grads = gradients()
    theta, velocity = np.ones((7, 5)), np.zeros((7, 5))
    for g in grads:
        decayed = g + 0.01 * theta
        velocity = 0.9 * velocity + decayed
        theta = theta - 0.05 * (decayed + 0.9 * velocity)
    settings = spec.SGD(name="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    # torch starts the velocity at the first gradient, which is what zero velocity gives without dampening
    np.testing.assert_allclose(run(settings, grads), theta, rtol=1e-11)


def rates(settings, steps_per_epoch=4, epochs=5):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(spec.SGD(name="sgd", lr=2.0), [parameter])
    schedule = build_schedule(settings, optimizer, steps_per_epoch=steps_per_epoch, epochs=epochs)
    seen = []
    for _ in range(steps_per_epoch * epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(seen)


def test_a_constant_schedule_is_constant():
    np.testing.assert_array_equal(rates(spec.Constant()), 2.0)


def test_warm_up_rises_to_the_full_rate():
    np.testing.assert_allclose(
        rates(spec.Constant(warmup_epochs=1.5))[:8] / 2, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1]
    )


def test_cosine_is_half_a_cosine():
    expected = 2 * (0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(20) / 20)) / 2)
    np.testing.assert_allclose(rates(spec.Cosine(name="cosine", final=0.1)), expected)


def test_linear_after_warm_up_is_a_line():
    seen = rates(spec.Linear(name="linear", warmup_epochs=1))
    np.testing.assert_allclose(seen[:4], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(seen[4:], 2 * (1 - np.arange(16) / 16))


def test_steps_drop_at_the_start_of_the_epoch_after_each_milestone():
    seen = rates(spec.Step(name="step", milestones=(1, 3), factor=0.1))
    np.testing.assert_allclose(seen, [2.0] * 4 + [0.2] * 8 + [0.02] * 8)


def test_a_warm_up_as_long_as_the_training_has_no_fall():
    assert lr_factor(spec.Cosine(name="cosine", warmup_epochs=5), 5, 5) == 0.0
    assert lr_factor(spec.Cosine(name="cosine", warmup_epochs=5), 2.5, 5) == 0.5
