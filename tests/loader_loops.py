"""Training loops of users that read their data with PyTorch's data loader, in processes of its own."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

POINTS = 16


class Points(Dataset):
    """Numbers; one of them takes its process down, in the way that is asked for."""

    def __init__(self, end):
        self.end = end

    def __len__(self):
        return POINTS

    def __getitem__(self, index):
        with Path("loaders").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if index == 3 and self.end == "memory":
            bytearray(1 << 45)
        if index == 3 and self.end == "numpy memory":
            np.ones(1 << 42)
        if index == 3 and self.end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(float(index))


def loading(trial):
    """Sum the numbers in each epoch."""
    loader = DataLoader(Points(trial.settings.params.get("end")), batch_size=4, num_workers=2)
    for _ in range(trial.epochs):
        yield {"test_acc": 0.5, "total": sum(batch.sum().item() for batch in loader)}


def waiting(trial):
    """Read half of the numbers, and go on for ever with the loader's processes at hand."""
    numbers = iter(DataLoader(Points(None), batch_size=4, num_workers=2))
    yield {"test_acc": 0.5, "total": next(numbers).sum().item()}
    Path("begun").touch()
    while True:
        time.sleep(0.01)
