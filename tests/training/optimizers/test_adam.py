"""Adam and AdamW against float64 NumPy readings of their papers' formulas."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fairtrial.training.optimizers.adam import Adam, AdamW
from trajectories import STEPS, descend, gradients

REFERENCE = Path(__file__).parents[1] / "reference"
found = importlib.util.spec_from_file_location("reference_formula", REFERENCE / "formula.py")
formula = importlib.util.module_from_spec(found)
found.loader.exec_module(formula)


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
    np.testing.assert_allclose(descend(Adam(lr=1e-3, **arm), grads), expected, rtol=1e-11)


@pytest.mark.parametrize("arm", PAPERS_ARMS)
def test_the_keras_convention_is_epsilon_hat(arm):
    grads = gradients()
    settings = Adam(lr=1e-3, eps_convention="keras", **arm)
    expected = adam_with_epsilon_hat(np.ones((7, 5)), grads, 1e-3, *arm["betas"], arm["eps"])
    np.testing.assert_allclose(descend(settings, grads), expected, rtol=1e-11)


def test_the_conventions_differ_where_it_matters():
    """With tiny gradients and the paper's large epsilon the two are other optimizers, so the tests above can fail."""
    grads = gradients()
    torch_way, keras_way = (descend(Adam(eps=1e-6, eps_convention=c), grads) for c in ("torch", "keras"))
    assert np.abs(torch_way - keras_way).max() > 1e-3


def test_float32_follows_float64():
    grads = gradients()
    expected = adam_as_the_paper_writes_it(np.ones((7, 5)), grads, 1e-3, 0.9, 0.999, 1e-8)
    np.testing.assert_allclose(descend(Adam(), grads, torch.float32), expected, rtol=1e-5)


def test_the_keras_convention_survives_a_saved_state():
    """The step count lives in the state dict, so a resumed run is the uninterrupted one."""
    settings, grads = Adam(eps=1e-6, eps_convention="keras"), gradients()
    parameter = torch.nn.Parameter(torch.ones((7, 5), dtype=torch.float64))
    optimizer = settings.build([parameter])
    for step, grad in enumerate(grads):
        if step == STEPS // 2:
            state = optimizer.state_dict()
            optimizer = settings.build([parameter])
            optimizer.load_state_dict(state)
        parameter.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_array_equal(parameter.detach().numpy(), descend(settings, grads))


def test_adamw_decays_apart_from_the_gradient():
    grads = gradients()
    theta, m, v = np.ones((7, 5)), np.zeros((7, 5)), np.zeros((7, 5))
    for t, g in enumerate(grads, start=1):
        theta = theta * (1 - 1e-3 * 0.1)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    settings = AdamW(weight_decay=0.1)
    np.testing.assert_allclose(descend(settings, grads), theta, rtol=1e-11)


@pytest.mark.parametrize("number", range(len(formula.ADAMS)))
def test_the_keras_convention_is_keras_over_a_thousand_steps(number):
    """Against Keras itself, as ``reference/make_adam.py`` has recorded it; in torch's convention it is another."""
    recorded = json.loads((REFERENCE / "adam.json").read_text(encoding="utf-8"))["weights"][number]
    settings = formula.ADAMS[number]
    ends = {}
    for convention in ("keras", "torch"):
        weights = torch.nn.Parameter(torch.zeros(12, dtype=torch.float64))
        optimizer = Adam(lr=1e-3, eps_convention=convention, **settings).build([weights])
        for step, gradient in enumerate(formula.gradients(1000), start=1):
            weights.grad = torch.from_numpy(gradient)
            optimizer.step()
            if convention == "keras" and step in formula.ADAM_STEPS:
                np.testing.assert_allclose(weights.detach().numpy(), recorded[str(step)], rtol=1e-9, atol=1e-16)
        ends[convention] = weights.detach().numpy().copy()
    assert np.abs(ends["torch"] / ends["keras"] - 1).max() > 1e-3
