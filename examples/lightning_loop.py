"""Lightning's Trainer as a training loop, by a callback that reports each epoch; lightning_loop.toml is its study."""

import logging

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fairtrial as ft

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # else each trial prints which devices there are


class Classifier(lightning.LightningModule):
    """A small network for scikit-learn's digits."""

    def __init__(self, hidden, adam):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        self.adam = adam

    def training_step(self, batch, _index):
        """Compute the loss of a batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, _index):
        """Compute the accuracy on a batch."""
        images, labels = batch
        self.log("test_acc", (self.network(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        """Make the optimizer of the trial's arm."""
        return torch.optim.Adam(self.parameters(), lr=self.adam.lr, betas=self.adam.betas, eps=self.adam.eps)


class Report(lightning.Callback):
    """Reports what the module has logged in an epoch."""

    def __init__(self, report):
        self.report = report

    def on_train_epoch_end(self, trainer, _module):
        """Report, after the epoch's validation."""
        self.report({name: float(value) for name, value in trainer.callback_metrics.items()})


def loaders(order_seed):
    """Make the data loaders; the seed decides the order of batches."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    train, test = (TensorDataset(images[rows], labels[rows]) for rows in (slice(1200), slice(1200, None)))
    order = torch.Generator().manual_seed(order_seed)
    return DataLoader(train, batch_size=32, shuffle=True, generator=order), DataLoader(test, batch_size=len(test))


@ft.reporting
def train(trial, report):
    """Train as always; only the callback is fairtrial's."""
    torch.manual_seed(trial.weights_seed)  # the same initial weights for all arms of a seed
    module = Classifier(trial.settings.params["hidden"], trial.settings.optimizer)
    trial.fingerprint(initial_weights=ft.fingerprint(module.state_dict()))
    trainer = lightning.Trainer(
        max_epochs=trial.epochs,
        accelerator="auto",
        devices=1,
        callbacks=[Report(report)],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, *loaders(trial.order_seed))
