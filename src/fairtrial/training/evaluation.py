"""Evaluate a network: as it is, with batch-norm statistics recomputed, and with averaged weights."""

from collections.abc import Mapping, Sequence

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

#: Images per forward pass of an evaluation: enough to keep the cores busy, few enough to stay in their caches.
EVALUATION_BATCH = 500
#: Test images of which an x-ray measures the loss along the way.
SAMPLE = 128
#: Training batches from which statistics of batch norm are recomputed: of 64 images, they leave a variance within 2%.
RECALIBRATION_BATCHES = 100


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
    for rows in torch.split(torch.arange(len(images)) if indices is None else indices, EVALUATION_BATCH):
        inputs, labels = (tensor.to(device) for tensor in images.batch(rows))
        outputs = network(inputs)
        tally.add(objective.plain.loss(outputs, labels), outputs, labels)
    network.train()
    return tally


def evaluate_all(learner: Learner, held_out: Mapping[str, datasets.ImageSet], prefix: str = "") -> dict[str, float]:
    """Evaluate on all held-out images: ``{prefix}test_loss`` and so on."""
    metrics: dict[str, float] = {}
    for name, images in held_out.items():
        metrics |= evaluate(learner.network, images, learner.device, objective=learner.objective).read(prefix + name)
    return metrics


def evaluate_epoch(
    learner: Learner, training: Training, dataset: datasets.Dataset, order: Sequence[Tensor]
) -> dict[str, float]:
    """Evaluate at the end of an epoch, in all the ways that a study asks for; training goes on as if it had not.

    Args:
        learner: what is evaluated.
        training: says which evaluations there are.
        dataset: has the images.
        order: the epoch's training batches, by their positions; the first full ones recalibrate batch norm, and on
            their images ``recalibrated_train_loss`` and ``recalibrated_train_acc`` are measured.
    """
    with evaluated_weights(learner.optimizer, learner.network):
        return _evaluate_in_all_ways(learner, training, dataset, order)


def _evaluate_in_all_ways(
    learner: Learner, training: Training, dataset: datasets.Dataset, order: Sequence[Tensor]
) -> dict[str, float]:
    held_out = held_out_sets(dataset)
    metrics = evaluate_all(learner, held_out)
    if training.recalibrate_batch_norm:
        full = [batch for batch in order if len(batch) == len(order[0])][:RECALIBRATION_BATCHES]
        inputs = (dataset.train.batch(batch)[0].to(learner.device) for batch in full)
        with recalibrated(learner.network, inputs):
            metrics |= evaluate_all(learner, held_out, RECALIBRATED)
            tally = evaluate(learner.network, dataset.train, learner.device, torch.cat(full), learner.objective)
            metrics |= tally.read(f"{RECALIBRATED}train")
    if learner.average is not None:
        with learner.average.applied():
            metrics |= evaluate_all(learner, held_out, EMA)
    return metrics


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
