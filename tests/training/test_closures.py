"""Optimizers that evaluate a batch again, and those that evaluate other weights than they train."""

import copy

import pytest
import torch
from torch import nn

from fairtrial.training.closures import evaluated_weights, step_with_closure

CPU = torch.device("cpu")


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization (Foret et al. 2021, algorithm 1) around plain descent."""

    def __init__(self, params, lr=0.1, rho=0.05):
        super().__init__(params, {"lr": lr, "rho": rho})

    @torch.no_grad()
    def first_step(self):
        (group,) = self.param_groups
        norm = torch.stack([one.grad.norm() for one in group["params"]]).norm()
        self.moved = [one.grad * (group["rho"] / norm) for one in group["params"]]
        for one, by in zip(group["params"], self.moved, strict=True):
            one.add_(by)

    @torch.no_grad()
    def step(self, closure):
        (group,) = self.param_groups
        self.first_step()
        closure()
        for one, by in zip(group["params"], self.moved, strict=True):
            one.sub_(by).sub_(one.grad, alpha=group["lr"])


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD (Defazio et al. 2024, equations 4 to 6), in training at y, in evaluation at x."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "mode": "eval", "steps": 0})

    @torch.no_grad()
    def _switch(self, mode):
        for group in self.param_groups:
            for one in group["params"]:
                z = self.state[one].setdefault("z", one.clone())
                if group["mode"] != mode:
                    one.lerp_(z, 1 - (1 / group["beta"] if mode == "eval" else group["beta"]))
            group["mode"] = mode

    def train(self):
        self._switch("train")

    def eval(self):
        self._switch("eval")

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group["mode"] == "train"
            group["steps"] += 1
            share = 1 / group["steps"]
            for one in group["params"]:
                z = self.state[one]["z"]
                x = one.lerp(z, 1 - 1 / group["beta"])
                z.sub_(one.grad, alpha=group["lr"])
                x.lerp_(z, share)
                one.copy_(z.lerp(x, group["beta"]))


def make_network(*, dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 2)]
        return nn.Sequential(*layers).double()


def gradient_of(network, seen=None):
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradient():
        network.zero_grad()
        outputs = network(inputs)
        loss = outputs.square().mean()
        loss.backward()
        if seen is not None:
            seen.append(outputs.detach())
        return loss.detach(), outputs.detach()

    return gradient


def test_lbfgs_is_torchs_own_with_the_usual_closure():
    ours = make_network()
    theirs = copy.deepcopy(ours)
    optimizers = [
        torch.optim.LBFGS(one.parameters(), max_iter=5, line_search_fn="strong_wolfe") for one in (ours, theirs)
    ]
    expected = gradient_of(theirs)
    for _ in range(4):
        loss, outputs = step_with_closure(optimizers[0], gradient_of(ours), ours, CPU)
        first = float(optimizers[1].step(lambda: expected()[0]))
        assert loss.item() == first
        assert outputs.shape == (8, 2)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_all_evaluations_of_a_step_see_one_dropout_and_leave_one_update_of_batch_norm():
    network, seen = make_network(dropout=0.5), []
    once = copy.deepcopy(network)
    torch.manual_seed(5)
    gradient_of(once)()
    after_one = torch.rand(1)
    torch.manual_seed(5)
    optimizer = torch.optim.LBFGS(network.parameters(), lr=1e-12, max_iter=3, tolerance_change=0.0, tolerance_grad=0.0)
    step_with_closure(optimizer, gradient_of(network, seen), network, CPU)
    assert torch.equal(torch.rand(1), after_one)
    assert len(seen) == 3
    torch.testing.assert_close(seen[2], seen[0], rtol=1e-9, atol=1e-9)  # a step that hardly moves
    for one, other in zip(network.buffers(), once.buffers(), strict=True):
        assert torch.equal(one, other)


def test_sam_takes_the_gradient_where_the_loss_is_highest_nearby():
    ours, theirs, seen = make_network(), make_network(), []
    optimizer = SAM(ours.parameters())
    step_with_closure(optimizer, gradient_of(ours, seen), ours, CPU)
    assert len(seen) == 2
    gradient = gradient_of(theirs)
    gradient()
    parameters = list(theirs.parameters())
    start, grads = [one.detach().clone() for one in parameters], [one.grad.clone() for one in parameters]
    norm = torch.sqrt(sum((grad**2).sum() for grad in grads))
    with torch.no_grad():
        for one, grad in zip(parameters, grads, strict=True):
            one.add_(0.05 * grad / norm)
    gradient()
    for one, mine, before in zip(parameters, ours.parameters(), start, strict=True):
        torch.testing.assert_close(mine.detach(), before - 0.1 * one.grad, rtol=1e-12, atol=1e-14)


def test_an_optimizer_that_only_wants_the_loss_costs_no_second_evaluation():
    class WantsLoss(torch.optim.SGD):
        def step(self, closure):
            self.loss = closure()
            super().step()

    network, seen = make_network(), []
    optimizer = WantsLoss(network.parameters(), lr=0.1)
    loss, _ = step_with_closure(optimizer, gradient_of(network, seen), network, CPU)
    assert (optimizer.loss, len(seen)) == (loss, 1)


@pytest.mark.parametrize("evaluations", [0, 3])
def test_evaluated_weights_are_the_average_and_leave_no_trace(evaluations):
    network = make_network()
    optimizer = ScheduleFree(network.parameters())
    optimizer.train()
    path = []
    for _ in range(6):
        step_with_closure(optimizer, gradient_of(network), network, CPU)
        path.append([optimizer.state[one]["z"].clone() for one in network.parameters()])
        for _ in range(evaluations):
            before = [one.detach().clone() for one in network.parameters()]
            with evaluated_weights(optimizer, network):
                for index, one in enumerate(network.parameters()):
                    average = torch.stack([z[index] for z in path]).mean(dim=0)
                    torch.testing.assert_close(one.detach(), average, rtol=1e-9, atol=1e-12)
            assert all(torch.equal(one, kept) for one, kept in zip(network.parameters(), before, strict=True))
            assert optimizer.param_groups[0]["mode"] == "train"


def test_other_optimizers_have_no_modes():
    network = make_network()
    with evaluated_weights(torch.optim.SGD(network.parameters()), network):
        pass


@pytest.mark.parametrize("change", ["weights", "gradients"])
def test_an_optimizer_that_changes_something_before_it_asks_gets_a_new_evaluation(change):
    class Asks(torch.optim.SGD):
        def step(self, closure):
            if change == "gradients":
                self.zero_grad()
            with torch.no_grad():
                for one in self.param_groups[0]["params"]:
                    one.add_(0.1 if change == "weights" else 0.0)
            closure()
            super().step()

    network, seen = make_network(), []
    before = [one.detach().clone() for one in network.parameters()]
    step_with_closure(Asks(network.parameters(), lr=0.1), gradient_of(network, seen), network, CPU)
    assert len(seen) == 2
    assert not any(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))
