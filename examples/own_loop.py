"""A training loop of your own that resumes after an interruption; own_loop.toml is its study."""

import torch
from torch import nn

import fairtrial as ft

INPUTS = torch.rand(600, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
TARGETS = INPUTS.sum(1, keepdim=True).sin()


def train(trial):
    """Learn the sine of a sum, and report the losses of each epoch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"  # a worker sees one GPU, and none with --device cpu
    inputs, targets = INPUTS.to(device), TARGETS.to(device)
    torch.manual_seed(trial.weights_seed)  # the same initial weights for all arms of a seed
    hidden = trial.settings.params["hidden"]
    model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 1)).to(device)
    trial.fingerprint(initial_weights=ft.fingerprint(model.state_dict()))
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.settings.optimizer.lr)
    order = torch.Generator().manual_seed(trial.order_seed)  # and the same order of batches
    start = 0
    if (state := trial.load()) is not None:  # this trial was interrupted: continue after the last saved epoch
        start = state["epoch"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        order.set_state(state["order"])
    for epoch in range(start, trial.epochs):
        for batch in torch.randperm(500, generator=order).split(20):
            loss = (model(inputs[batch]) - targets[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            test_loss = (model(inputs[500:]) - targets[500:]).square().mean()
        yield {"train_loss": loss.item(), "test_loss": test_loss.item()}
        trial.save(
            {
                "epoch": epoch + 1,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "order": order.get_state(),
            }
        )
