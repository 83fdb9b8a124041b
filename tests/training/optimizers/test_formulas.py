"""torch's optimizers against float64 NumPy readings of their formulas, as their settings say them."""

import numpy as np
import pytest
import torch

from fairtrial.registry import OPTIMIZERS
from trajectories import descend, gradients

#: Those whose defaults are torch's own; ours of the others differ on purpose.
TORCHS = ["adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd", "lbfgs", "nadam", "radam", "rprop"]


def adadelta(grads, theta):
    squares, steps = np.zeros((2, *theta.shape))
    for g in grads:
        decayed = g + 0.1 * theta
        squares = 0.8 * squares + 0.2 * decayed**2
        step = np.sqrt(steps + 1e-5) / np.sqrt(squares + 1e-5) * decayed
        steps = 0.8 * steps + 0.2 * step**2
        theta = theta - 0.5 * step
    return theta


def adagrad(grads, theta):
    total = np.full(theta.shape, 0.3)
    for t, g in enumerate(grads, start=1):
        decayed = g + 0.1 * theta
        total = total + decayed**2
        theta = theta - 0.02 / (1 + (t - 1) * 0.05) * decayed / (np.sqrt(total) + 1e-6)
    return theta


def adamax(grads, theta):
    mean, greatest = np.zeros((2, *theta.shape))
    for t, g in enumerate(grads, start=1):
        decayed = g + 0.1 * theta
        mean = 0.8 * mean + 0.2 * decayed
        greatest = np.maximum(0.99 * greatest, np.abs(decayed) + 1e-6)
        theta = theta - 0.02 / (1 - 0.8**t) * mean / greatest
    return theta


def nadam(grads, theta, *, decoupled=False):
    mean, square = np.zeros((2, *theta.shape))
    mus = [0.8 * (1 - 0.5 * 0.96 ** (t * 0.01)) for t in range(1, len(grads) + 2)]
    for t, g in enumerate(grads, start=1):
        theta = theta * (1 - 0.02 * 0.1) if decoupled else theta
        decayed = g if decoupled else g + 0.1 * theta
        mean = 0.8 * mean + 0.2 * decayed
        square = 0.99 * square + 0.01 * decayed**2
        denominator = np.sqrt(square / (1 - 0.99**t)) + 1e-6
        now, ahead = (1 - mus[t - 1]) / (1 - np.prod(mus[:t])), mus[t] / (1 - np.prod(mus[: t + 1]))
        theta = theta - 0.02 * (now * decayed + ahead * mean) / denominator
    return theta


def radam(grads, theta):
    mean, square = np.zeros((2, *theta.shape))
    most = 2 / (1 - 0.99) - 1
    for t, g in enumerate(grads, start=1):
        decayed = g + 0.1 * theta
        mean = 0.8 * mean + 0.2 * decayed
        square = 0.99 * square + 0.01 * decayed**2
        corrected = mean / (1 - 0.8**t)
        length = most - 2 * t * 0.99**t / (1 - 0.99**t)
        step = corrected
        if length > 5:
            rectified = np.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
            step = corrected * rectified * np.sqrt(1 - 0.99**t) / (np.sqrt(square) + 1e-6)
        theta = theta - 0.02 * step
    return theta


def rprop(grads, theta):
    before, sizes = np.zeros(theta.shape), np.full(theta.shape, 0.02)
    for g in grads:
        agrees = np.sign(g * before)
        sizes = np.clip(sizes * np.where(agrees > 0, 1.3, np.where(agrees < 0, 0.4, 1.0)), 1e-4, 3.0)
        taken = np.where(agrees < 0, 0.0, g)
        theta, before = theta - np.sign(taken) * sizes, taken
    return theta


def asgd(grads, theta):
    eta = 0.02
    for t, g in enumerate(grads, start=1):
        theta = theta * (1 - 0.05 * eta) - eta * (g + 0.1 * theta)
        eta = 0.02 / (1 + 0.05 * 0.02 * t) ** 0.6
    return theta


def adafactor(grads, theta):
    rows, columns = np.zeros((theta.shape[0], 1)), np.zeros((1, theta.shape[1]))
    for t, g in enumerate(grads, start=1):
        share = t**-0.7
        rate = max(1e-2, np.sqrt(np.mean(theta**2))) * min(0.02, 1 / np.sqrt(t))
        theta = theta * (1 - 0.02 * 0.1)
        rows += share * ((g**2).mean(axis=1, keepdims=True) - rows)
        columns += share * ((g**2).mean(axis=0, keepdims=True) - columns)
        eps = np.finfo(np.float64).eps
        variance = rows @ columns / max(rows.mean(), eps)
        update = g / np.sqrt(np.maximum(variance, eps**2))
        theta = theta - rate / max(1.0, np.sqrt(np.mean(update**2)) / 1.2) * update
    return theta


BETAS = {"lr": 0.02, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.1}
CASES = {
    "adadelta": (adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.1}),
    "adagrad": (
        adagrad,
        {"lr": 0.02, "lr_decay": 0.05, "initial_accumulator_value": 0.3, "eps": 1e-6, "weight_decay": 0.1},
    ),
    "adamax": (adamax, BETAS),
    "nadam": (nadam, BETAS | {"momentum_decay": 0.01}),
    "radam": (radam, BETAS),
    "rprop": (rprop, {"lr": 0.02, "etas": [0.4, 1.3], "step_sizes": [1e-4, 3.0]}),
    "asgd": (asgd, {"lr": 0.02, "lambd": 0.05, "alpha": 0.6, "weight_decay": 0.1}),
    "adafactor": (adafactor, {"lr": 0.02, "beta2_decay": -0.7, "eps": 1e-2, "d": 1.2, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_its_formula(name):
    formula, keys = CASES[name]
    grads = gradients()
    settings = OPTIMIZERS.get(name)(**keys)
    rtol = 1e-6 if name == "asgd" else 1e-9  # torch keeps ASGD's rate as a float32
    np.testing.assert_allclose(descend(settings, grads), formula(grads, np.ones((7, 5))), rtol=rtol)


def test_decoupled_decay_is_subtracted_from_the_weights():
    grads = gradients()
    settings = OPTIMIZERS.get("nadam")(**BETAS, momentum_decay=0.01, decoupled_weight_decay=True)
    np.testing.assert_allclose(descend(settings, grads), nadam(grads, np.ones((7, 5)), decoupled=True), rtol=1e-9)


@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_amsgrad_divides_by_the_greatest(convention):
    grads = gradients()
    theta, (mean, square, greatest) = np.ones((7, 5)), np.zeros((3, 7, 5))
    for t, g in enumerate(grads, start=1):
        mean, square = 0.8 * mean + 0.2 * g, 0.99 * square + 0.01 * g**2
        greatest = np.maximum(greatest, square)
        correction = np.sqrt(1 - 0.99**t)
        step = mean / (1 - 0.8**t)
        if convention == "torch":
            theta = theta - 0.02 * step / (np.sqrt(greatest) / correction + 1e-6)
        else:
            theta = theta - 0.02 * correction * step / (np.sqrt(greatest) + 1e-6)
    settings = OPTIMIZERS.get("adam")(lr=0.02, betas=(0.8, 0.99), eps=1e-6, amsgrad=True, eps_convention=convention)
    np.testing.assert_allclose(descend(settings, grads), theta, rtol=1e-9)


@pytest.mark.parametrize("name", TORCHS)
def test_the_defaults_are_torchs(name):
    settings = OPTIMIZERS.get(name)()
    theirs = getattr(torch.optim, settings.torch_class)([torch.nn.Parameter(torch.ones(1))]).defaults
    ours = settings.model_dump(exclude={"name", "eps_convention"})
    expected = {key: theirs[key] for key in ours}
    if name == "adafactor":
        expected["eps"] = expected["eps"][1]  # the first is that of the weights' type
    if name == "lbfgs":
        expected["max_eval"] = None
    assert ours == expected


def test_every_class_of_torch_has_a_name_or_a_reason():
    classes = {name for name, one in vars(torch.optim).items() if isinstance(one, type)} - {"Optimizer", "SparseAdam"}
    assert {name.lower() for name in classes} == set(OPTIMIZERS.names())
