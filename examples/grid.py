"""A small network on scikit-learn's handwritten digits, a fraction of a second a trial; grid.toml is its study."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import fairtrial as ft

DIGITS = load_digits()
INPUTS, LABELS = torch.tensor(DIGITS.data / 16).float(), torch.tensor(DIGITS.target)
TRAIN = 1000  # the others were written by other people


def train(trial):
    """Learn to read digits with Adam, and report losses and accuracies of each epoch."""
    torch.manual_seed(trial.weights_seed)  # the same initial weights for all arms of a seed
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    adam = trial.settings.optimizer
    optimizer = torch.optim.Adam(model.parameters(), lr=adam.lr, betas=adam.betas, eps=adam.eps)
    order = torch.Generator().manual_seed(trial.order_seed)  # and the same order of batches
    shared = {"initial_weights": model.state_dict(), "batch_order": {"state": order.get_state()}}
    trial.fingerprint(**{name: ft.fingerprint(value) for name, value in shared.items()})
    for _epoch in range(trial.epochs):
        for batch in torch.randperm(TRAIN, generator=order).split(trial.settings.training.batch_size):
            loss = nn.functional.cross_entropy(model(INPUTS[batch]), LABELS[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = model(INPUTS[TRAIN:])
        test_loss = nn.functional.cross_entropy(logits, LABELS[TRAIN:])
        right = logits.argmax(1) == LABELS[TRAIN:]
        yield {"train_loss": loss.item(), "test_loss": test_loss.item(), "test_acc": right.float().mean().item()}
