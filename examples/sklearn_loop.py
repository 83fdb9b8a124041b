"""Scikit-learn's SGDClassifier as a training loop, without torch; sklearn_loop.toml is its study."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss


def train(trial):
    """Pass over the images in a new order in each epoch, and report the loss and the accuracy."""
    digits = load_digits()
    images, labels = digits.data / 16, digits.target
    test_images, test_labels = images[1200:], labels[1200:]
    model = SGDClassifier(loss="log_loss", alpha=trial.settings.params["alpha"], shuffle=False)
    for epoch in range(trial.epochs):
        rows = np.random.default_rng([trial.order_seed, epoch]).permutation(1200)  # the same for all arms of a seed
        model.partial_fit(images[rows], labels[rows], classes=np.unique(labels))
        yield {
            "train_loss": log_loss(labels[:1200], model.predict_proba(images[:1200])),
            "test_acc": model.score(test_images, test_labels),
        }
