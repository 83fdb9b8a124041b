"""A training loop of a user's own with an x-ray, for worker processes."""

import torch
from torch import nn


def train(trial):
    """Learn the sign of a sum, with a state that can be saved."""
    torch.manual_seed(trial.weights_seed)
    network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=trial.settings.optimizer.lr)
    trial.xray(optimizer, network)
    done = 0
    if (state := trial.load()) is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["done"]
    for epoch in range(done, trial.epochs):
        generator = torch.Generator().manual_seed(1000 * trial.order_seed + epoch)
        total = 0.0
        for _ in range(120):
            inputs = torch.randn(16, 8, generator=generator)
            labels = (inputs.sum(1) > 0).long()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(inputs), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        yield {"train_loss": total / 120, "test_acc": 1 / (1 + total / 120)}
        trial.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "done": epoch + 1})
