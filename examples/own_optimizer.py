"""Compare an optimizer of your own with Adam, in fairtrial's training loop on scikit-learn's digits."""

from collections.abc import Iterable

import torch

import fairtrial as ft
from fairtrial.spec.numbers import BelowOne


class Signum(ft.OptimizerSettings):
    """Sign descent with momentum (Bernstein et al. 2018): its keys in a study, and what they build."""

    momentum: BelowOne = 0.9

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return SignDescent(parameters, {"lr": self.lr, "momentum": self.momentum})


class SignDescent(torch.optim.Optimizer):
    """Steps of one size: the sign of a running mean of the gradient."""

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:
        """Take a step."""
        for group in self.param_groups:
            for weights in group["params"]:
                mean = self.state[weights].setdefault("mean", torch.zeros_like(weights))
                mean.lerp_(weights.grad, 1 - group["momentum"])
                weights.sub_(mean.sign(), alpha=group["lr"])


STUDY = {
    "name": "signum",
    "reference": "adam",
    "seeds": 3,
    "data": {"name": "digits", "train": 500},
    "model": {"name": "small_cnn", "width": 8},
    "training": {"epochs": 2},
    "arms": {"adam": {}, "signum": {"optimizer": {"name": "own_optimizer:Signum", "lr": 1e-3}}},
}

if __name__ == "__main__":
    results = ft.run(ft.Study.from_dict(STUDY), executor=ft.InlineExecutor())
    print(results.table())
    print(results.verdict())
