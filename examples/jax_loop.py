"""A training loop in JAX and optax that resumes after an interruption; jax_loop.toml is its study."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # a trial has one thread unless told otherwise

import jax
import numpy as np
import optax
from jax import numpy as jnp
from sklearn.datasets import load_digits

import fairtrial as ft


def logits(weights, images):
    """Compute the outputs of a network with one hidden layer."""
    hidden = jax.nn.relu(images @ weights["hidden"] + weights["hidden_bias"])
    return hidden @ weights["output"] + weights["output_bias"]


def loss(weights, images, labels):
    """Compute the mean cross entropy in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(weights, images), labels).mean()


def initial_weights(seed, hidden):
    """Draw the weights (He et al. 2015) from the seed alone."""
    keys = jax.random.split(jax.random.key(seed))
    return {
        "hidden": jax.random.normal(keys[0], (64, hidden)) * (2 / 64) ** 0.5,
        "hidden_bias": jnp.zeros(hidden),
        "output": jax.random.normal(keys[1], (hidden, 10)) * (2 / hidden) ** 0.5,
        "output_bias": jnp.zeros(10),
    }


def train(trial):
    """Train on scikit-learn's digits, and report the loss and the accuracy."""
    digits = load_digits()
    images, labels = (digits.data / 16).astype("float32"), digits.target.astype("int32")
    adam = trial.settings.optimizer
    optimizer = optax.adam(adam.lr, b1=adam.betas[0], b2=adam.betas[1], eps=adam.eps)
    weights = initial_weights(trial.weights_seed, trial.settings.params["hidden"])
    trial.fingerprint(initial_weights=ft.fingerprint({name: np.asarray(value) for name, value in weights.items()}))
    state = (weights, optimizer.init(weights))
    start, saved = 0, trial.load()
    if saved is not None:  # this trial was interrupted: continue after the last saved epoch
        start = saved["epoch"]
        state = jax.tree.unflatten(jax.tree.structure(state), saved["leaves"])

    @jax.jit
    def step(state, images, labels):
        weights, moments = state
        value, gradient = jax.value_and_grad(loss)(weights, images, labels)
        updates, moments = optimizer.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments), value

    for epoch in range(start, trial.epochs):
        order = np.random.default_rng([trial.order_seed, epoch]).permutation(1200)  # the same for all arms of a seed
        losses = []
        for rows in order.reshape(-1, 40):
            state, value = step(state, images[rows], labels[rows])
            losses.append(value)
        correct = logits(state[0], images[1200:]).argmax(1) == labels[1200:]
        yield {"train_loss": float(np.mean(losses)), "test_acc": float(correct.mean())}
        trial.save({"epoch": epoch + 1, "leaves": [np.asarray(leaf) for leaf in jax.tree.leaves(state)]})
