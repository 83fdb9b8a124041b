"""Try a network before any training: what it takes and gives, and where its weights come from."""

import torch
from torch import Tensor, nn

from fairtrial.errors import StudyError
from fairtrial.spec import Settings
from fairtrial.spec.messages import describe_error
from fairtrial.training import datasets
from fairtrial.training.learner import build_network


def probe(settings: Settings, dataset: datasets.Dataset) -> None:
    """Make sure that a network can be trained on a data set, and that a seed gives it its weights.

    It gets a few training images, in training mode (as many as the smallest batch has, because batch norm refuses a
    single value) and in evaluation mode.

    Raises:
        StudyError: it can't be made, fails, gives something other than a row of finite numbers for each image, or two
            networks of one seed share weights or differ in them.
    """
    where, batch_size = f'model.name = "{settings.model.name}"', settings.training.batch_size
    networks = [build_network(settings.model, dataset, seed=0) for _ in range(2)]
    if problem := _weights_problem(*networks):
        raise StudyError(f"{where}: {problem}")
    smallest = len(dataset.train) % batch_size or min(batch_size, len(dataset.train))
    for training, size in ((True, min(smallest, 2)), (False, min(len(dataset.train), 2))):
        images, _ = dataset.train.batch(torch.arange(size))
        if problem := _output_problem(networks[0].train(training), images, dataset.classes):
            raise StudyError(f"{where}: {problem}")


def _weights_problem(one: nn.Module, other: nn.Module) -> str:
    first, second = one.state_dict(), other.state_dict()
    places = {value.data_ptr() for value in second.values()} - {0}
    if one is other or any(value.data_ptr() in places for value in first.values()):
        return "gives the same network twice, which trials would share; make a new one in each call"
    if not any(parameter.requires_grad for parameter in one.parameters()):
        return "has no weights to train"
    different = [name for name, value in first.items() if name not in second or not torch.equal(value, second[name])]
    if different:
        return f"two networks of one seed differ in {different[0]}; draw initial weights from torch's global generator"
    return ""


def _output_problem(network: nn.Module, images: Tensor, classes: int) -> str:
    """Say what is wrong with what a network gives for images; empty if nothing is."""
    shape, mode = tuple(images.shape), "training" if network.training else "evaluation"
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            outputs = network(images)
        except Exception as error:  # noqa: BLE001  (somebody's code)
            return f"fails on inputs of shape {shape} in {mode} mode: {describe_error(error)}"
    wanted = f"it must give logits of shape ({shape[0]}, {classes})"
    if not isinstance(outputs, Tensor):
        return f"gives {type(outputs).__name__} in {mode} mode; {wanted}"
    shapes = [(shape[0], classes), *([(shape[0],)] if classes == 1 else [])]
    if outputs.shape not in shapes or not outputs.is_floating_point():
        return f"gives {str(outputs.dtype).removeprefix('torch.')} {tuple(outputs.shape)} in {mode} mode; {wanted}"
    return "" if outputs.isfinite().all() else f"gives numbers that are not finite in {mode} mode"
