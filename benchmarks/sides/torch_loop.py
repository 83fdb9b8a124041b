"""One side of a comparison: a training loop as tutorials write it.

NCHW, a DataLoader with two worker processes, `torch.optim.Adam` as it comes, `.item()` on every loss. Trains the
paper's arms one after another and prints one line of JSON. The network is fairtrial's plain one, which is torchvision's
parameter by parameter.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fairtrial.training.models.mobilenet_v2 import MobileNetV2

ARMS = [(0.9, 0.999, 1e-8), (0.95, 0.999, 1e-8), (0.9, 0.99, 1e-8), (0.9, 0.999, 1e-6), (0.99, 0.9999, 1e-7)]


def train_arm(train: TensorDataset, test: TensorDataset, arm: tuple[float, float, float], options) -> float:
    """Train one arm; return the last epoch's mean loss."""
    model = MobileNetV2().build(classes=10, image_size=32, channels=3, seed=0).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=arm[:2], eps=arm[2])
    criterion = nn.CrossEntropyLoss()
    train_loader = DataLoader(train, batch_size=64, shuffle=True, num_workers=options.loaders)
    test_loader = DataLoader(test, batch_size=64, num_workers=options.loaders)
    running = 0.0
    for _ in range(options.epochs):
        model.train()
        running = 0.0
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item() * len(labels)
        model.eval()
        correct = 0
        with torch.no_grad():
            for inputs, labels in test_loader:
                correct += (model(inputs).argmax(1) == labels).sum().item()
    return running / len(train)


def main() -> None:
    """Load the arrays that the benchmark made, train, print seconds and images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arrays", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--arms", type=int, default=len(ARMS))
    parser.add_argument("--loaders", type=int, default=2)
    options = parser.parse_args()
    arrays = np.load(options.arrays)
    sets = []
    for part in ("train", "test"):
        images = torch.from_numpy(arrays[f"x_{part}"]).permute(0, 3, 1, 2).contiguous().float() / 255
        sets.append(TensorDataset(images, torch.from_numpy(arrays[f"y_{part}"]).long()))
    torch.manual_seed(0)
    started = time.perf_counter()
    losses = [train_arm(*sets, arm, options) for arm in ARMS[: options.arms]]
    seconds = time.perf_counter() - started
    images = options.arms * options.epochs * len(sets[0])
    print(
        json.dumps({"seconds": seconds, "images": images, "losses": losses, "versions": {"torch": torch.__version__}})
    )


if __name__ == "__main__":
    main()
