"""Evaluate a network: as it is, with batch-norm statistics recomputed, and with averaged weights."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor, nn

from fairtrial.spec import ModelSettings
from fairtrial.spec.metrics import EMA, RECALIBRATED
from fairtrial.spec.settings import Training
from fairtrial.training import datasets
from fairtrial.training.averages import recalibrated
from fairtrial.training.closures import evaluated_weights
from fairtrial.training.learner import Learner
from fairtrial.training.losses import Accumulator, Objective
from fairtrial.training.placement import to_device
from fairtrial.training.xray import Xray

#: Images per forward pass of an evaluation: enough to keep the cores busy, few enough to stay in their caches.
EVALUATION_BATCH = 500
#: The same on a GPU, which has more to fill.
EVALUATION_BATCH_OF_GPU = 1000
#: Test images of which an x-ray measures the loss along the way.
SAMPLE = 128
#: Training batches from which statistics of batch norm are recomputed: of 64 images, they leave a variance within 2%.
RECALIBRATION_BATCHES = 100


class Evaluate(Protocol):
    """What measures a network's loss and accuracy on images: `evaluate`, or `graphed.RecordedTraining.evaluate`."""

    def __call__(
        self,
        network: nn.Module,
        images: datasets.ImageSet,
        device: torch.device,
        indices: Tensor | None = None,
        objective: Objective = ...,
    ) -> Accumulator:
        """Return the sums, which may have to be waited for."""


def evaluation_batch(device: torch.device) -> int:
    """Images per forward pass of an evaluation on a device."""
    return EVALUATION_BATCH if device.type == "cpu" else EVALUATION_BATCH_OF_GPU


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    images: datasets.ImageSet,
    device: torch.device,
    indices: Tensor | None = None,
    objective: Objective = Objective(),  # noqa: B008  (immutable)
) -> Accumulator:
    """Measure loss and accuracy in evaluation mode, on all images or some, then return the network to training mode.

    Label smoothing is for training, and is left out here.
    """
    network.eval()
    tally = objective.accumulator(device)
    every = to_device(torch.arange(len(images)) if indices is None else indices, device)
    for rows in torch.split(every, evaluation_batch(device)):
        inputs, labels = (tensor.to(device) for tensor in images.batch(rows))
        outputs = network(inputs)
        tally.add(objective.plain.loss(outputs, labels), outputs, labels)
    network.train()
    return tally


def evaluate_all(
    learner: Learner, held_out: Mapping[str, datasets.ImageSet], prefix: str = "", measure: Evaluate = evaluate
) -> dict[str, Accumulator]:
    """Evaluate on all held-out images: the sums for ``{prefix}test`` and so on."""
    return {
        prefix + name: measure(learner.network, images, learner.device, objective=learner.objective)
        for name, images in held_out.items()
    }


def evaluate_epoch(
    learner: Learner,
    training: Training,
    dataset: datasets.Dataset,
    order: Sequence[Tensor],
    measure: Evaluate = evaluate,
) -> dict[str, Accumulator]:
    """Evaluate at the end of an epoch, in all the ways that a study asks for; training goes on as if it had not.

    Args:
        learner: what is evaluated.
        training: says which evaluations there are.
        dataset: has the images.
        order: the epoch's training batches, by their positions; the first full ones recalibrate batch norm, and on
            their images ``recalibrated_train_loss`` and ``recalibrated_train_acc`` are measured.
        measure: evaluates on some images.

    Returns:
        The sums by the beginnings of their metrics' names; see `read_all`.
    """
    with evaluated_weights(learner.optimizer, learner.network):
        return _evaluate_in_all_ways(learner, training, dataset, order, measure)


def read_all(sums: Mapping[str, Accumulator]) -> dict[str, float]:
    """Read all metrics of an evaluation: ``test_loss`` and so on."""
    return {name: value for prefix, one in sums.items() for name, value in one.read(prefix).items()}


def _evaluate_in_all_ways(
    learner: Learner, training: Training, dataset: datasets.Dataset, order: Sequence[Tensor], measure: Evaluate
) -> dict[str, Accumulator]:
    held_out = held_out_sets(dataset)
    sums = evaluate_all(learner, held_out, measure=measure)
    if training.recalibrate_batch_norm:
        full = [batch for batch in order if len(batch) == len(order[0])][:RECALIBRATION_BATCHES]
        inputs = (dataset.train.batch(to_device(batch, learner.device))[0].to(learner.device) for batch in full)
        with recalibrated(learner.network, inputs):
            sums |= evaluate_all(learner, held_out, RECALIBRATED, measure)
            rows = torch.cat(full)
            sums[f"{RECALIBRATED}train"] = measure(
                learner.network, dataset.train, learner.device, rows, learner.objective
            )
    if learner.average is not None:
        with learner.average.applied():
            sums |= evaluate_all(learner, held_out, EMA, measure)
    return sums


def along_the_way(learner: Learner, model: ModelSettings, dataset: datasets.Dataset) -> dict[str, float]:
    """Measure the loss on up to `SAMPLE` test images, evenly spaced, for an x-ray; training goes on as if it had not.

    Of a model of the user's own nothing is measured: its evaluation might change it.
    """
    if ":" in model.name:
        return {}
    images = len(dataset.test)
    some = torch.arange(0, images, -(-images // SAMPLE))
    with evaluated_weights(learner.optimizer, learner.network):
        tally = evaluate(learner.network, dataset.test, learner.device, some, learner.objective)
    return {"test_loss": tally.read("test")["test_loss"]}


def add_losses(
    xray: Xray, learner: Learner, tally: Accumulator, model: ModelSettings, dataset: datasets.Dataset
) -> None:
    """Add the losses so far to the snapshot that was just taken."""
    begun = perf_counter()
    losses = along_the_way(learner, model, dataset)
    xray.add_losses(train_loss=tally.read("train")["train_loss"], **losses)
    if not losses:
        xray.note("test loss along the way: not measured of a model of your own, which its evaluation might change")
    xray.seconds += perf_counter() - begun


def evaluated_images(training: Training, dataset: datasets.Dataset) -> int:
    """Count the images that all evaluations of a trial pass through the network."""
    held_out = sum(map(len, held_out_sets(dataset).values()))
    of_epoch = held_out * (1 + training.recalibrate_batch_norm + (training.ema is not None))
    if training.recalibrate_batch_norm:  # once for the statistics, once for the accuracy
        batch = min(training.batch_size, len(dataset.train))
        of_epoch += 2 * batch * min(RECALIBRATION_BATCHES, len(dataset.train) // batch)
    return training.epochs * of_epoch + (training.evaluations_last_epoch - 1) * held_out


def held_out_sets(dataset: datasets.Dataset) -> dict[str, datasets.ImageSet]:
    """The images that no step trains on, by the names of their metrics."""
    return {"test": dataset.test} | ({"val": dataset.validation} if dataset.validation else {})


def evaluations_within(training: Training, epoch: int, batches: int) -> dict[int, str]:
    """After which batches of an epoch there is an evaluation before the end, each with the prefix of its metrics.

    Example:
        >>> evaluations_within(Training(epochs=3, evaluations_last_epoch=4), epoch=3, batches=10)
        {3: 'eval1_', 5: 'eval2_', 8: 'eval3_'}
    """
    number = training.evaluations_last_epoch if epoch == training.epochs else 1
    return {-(-batches * index // number): f"eval{index}_" for index in range(1, number)}
