"""Training loops for the check of loops: one that is sound, and the same with one fault each.

A small network learns three classes of points; an epoch takes milliseconds. Each fault is planted by a `Plan`, so that
nothing else differs between a loop and the sound one.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

POINTS = torch.linspace(-2, 2, 96 * 4).reshape(96, 4)[torch.randperm(96, generator=torch.Generator().manual_seed(0))]
LABELS = (POINTS.sum(dim=1) > 0).long() + (POINTS.sum(dim=1) > 4).long()
SHARED = {}  # what a loop keeps from trial to trial, by mistake


@dataclass(frozen=True)
class Plan:
    """What a loop does wrong; nothing by default."""

    ignores_lr: bool = False
    forgets_schedule: bool = False
    forgets_random: bool = False
    seeds_weights: bool = True
    order_from: str = "order_seed"
    keeps_model: bool = False
    loader_shuffles: bool = False
    races: bool = False
    metric: str = "test_acc"
    factor: float = 1.0


def network(trial, plan):
    if plan.keeps_model and "model" in SHARED:
        return SHARED["model"]
    if plan.seeds_weights:
        torch.manual_seed(trial.weights_seed)
    SHARED["model"] = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    return SHARED["model"]


def batches(trial, plan, generator, epoch):
    """Points and labels of an epoch in batches of 16, in an order of the seed and the epoch."""
    if plan.loader_shuffles:  # by torch's global generator, which the weights were drawn from
        yield from DataLoader(TensorDataset(POINTS, LABELS), batch_size=16, shuffle=True)
        return
    for rows in torch.randperm(96, generator=generator).split(16):
        yield POINTS[rows], LABELS[rows]


def averaged_in_a_race(values):
    """Average numbers, the later ones most, in the order in which threads happen to be done."""
    done, lock = [], threading.Lock()

    def work(value):
        time.sleep(int.from_bytes(os.urandom(1)) / 25_500)
        with lock:
            done.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    average = done[0]
    for value in done[1:]:
        average = 0.9 * average + 0.1 * value
    return average


def trained(trial, plan):
    model = network(trial, plan)
    lr = 0.1 if plan.ignores_lr else trial.settings.optimizer.lr
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    orders = torch.Generator().manual_seed(getattr(trial, plan.order_from))
    if not plan.loader_shuffles:
        torch.manual_seed(trial.order_seed)  # for dropout
    done = 0
    if (state := trial.load()) is not None:
        done = state["done"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        orders.set_state(state["orders"])
        if not plan.forgets_random:
            torch.set_rng_state(state["random"])
        if not plan.forgets_schedule:
            schedule.load_state_dict(state["schedule"])
        else:
            optimizer.param_groups[0]["lr"] = lr
    for epoch in range(done, trial.epochs):
        model.train()
        for points, labels in batches(trial, plan, orders, epoch):
            losses = nn.functional.cross_entropy(model(points), labels, reduction="none")
            loss = averaged_in_a_race(losses) if plan.races else losses.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(POINTS).argmax(dim=1) == LABELS).float().mean().item()
        yield {"train_loss": loss.item(), plan.metric: plan.factor * accuracy, "train_seconds": time.perf_counter()}
        trial.save(
            {
                "done": epoch + 1,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "orders": orders.get_state(),
                "random": torch.get_rng_state(),
            }
        )


def sound(trial):
    yield from trained(trial, Plan())


def ignored_setting(trial):
    yield from trained(trial, Plan(ignores_lr=True))


def unsaved_scheduler(trial):
    yield from trained(trial, Plan(forgets_schedule=True))


def unsaved_random_state(trial):
    yield from trained(trial, Plan(forgets_random=True))


def unseeded_weights(trial):
    yield from trained(trial, Plan(seeds_weights=False))


def order_from_the_wrong_seed(trial):
    yield from trained(trial, Plan(order_from="weights_seed"))


def order_from_the_own_seed(trial):
    yield from trained(trial, Plan(order_from="seed"))


def metric_missing(trial):
    yield from trained(trial, Plan(metric="accuracy"))


def percent(trial):
    yield from trained(trial, Plan(factor=100.0))


def shared_state(trial):
    yield from trained(trial, Plan(keeps_model=True))


def shuffling_loader(trial):
    yield from trained(trial, Plan(loader_shuffles=True))


def racing(trial):
    yield from trained(trial, Plan(races=True))


def own_threads(trial):
    torch.set_num_threads(3)
    yield from trained(trial, Plan())


def only_killed_it_forgets(trial):
    """Tidy up when the loop is left, which a process that is killed does not; what is left then spoils the next one."""
    left = Path(f"{trial.arm}.left")
    spoiled = left.exists()
    left.touch()
    try:
        for record in trained(trial, Plan()):
            yield record | {"train_loss": record["train_loss"] + spoiled}
    finally:
        left.unlink()
