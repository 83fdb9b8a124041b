"""Put tensors on a device: a data set's once for all trials there, small ones without waiting for it."""

from dataclasses import replace

import torch

from fairtrial.training.datasets import Dataset, ImageSet


def on_device(dataset: Dataset, device: torch.device) -> Dataset:
    """Copy a data set to a device; parts that share their images go on sharing them.

    The images stay bytes: CIFAR-10 takes 184 MB. An error of torch's says that a device has no room for them.
    """
    copies: dict[tuple[object, ...], torch.Tensor] = {}

    def copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)  # one array may begin where another does
        if key not in copies:
            copies[key] = tensor.to(device)
        return copies[key]

    def move(part: ImageSet) -> ImageSet:
        pixels, index, labels = (copy(one) for one in (part.pixels, part.index, part.labels))
        assert pixels is not None
        assert labels is not None
        return ImageSet(pixels, index, labels)

    held_out = None if dataset.validation is None else move(dataset.validation)
    moved = replace(dataset, train=move(dataset.train), test=move(dataset.test), validation=held_out)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # other trials read the copies on other streams
    return moved


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the CPU to a device, without waiting for the device."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
