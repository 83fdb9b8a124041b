"""Models by path: a class of networks, or a function that makes one, of torchvision, timm or anybody."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.registry import NotFoundError, did_you_mean
from fairtrial.spec.arguments import FromSignature, parameters_of, settings_of, takes_any
from fairtrial.spec.hashing import is_name
from fairtrial.spec.messages import describe_error
from fairtrial.spec.sections import ModelSettings
from fairtrial.training.datasets.download import DownloadProgress, silent
from fairtrial.training.weights.published import Published, digest_of, of_torchvision

if TYPE_CHECKING:
    import torch

#: Arguments that are given by the data, and their usual names. Others, such as ``channels``, may mean anything.
GIVEN = {
    "classes": ("num_classes", "n_classes", "num_labels"),
    "channels": ("in_channels", "in_chans"),
    "image_size": ("image_size", "img_size"),
}


def adapt(name: str, thing: Any) -> type[ModelSettings]:
    """Make settings of a class of networks, or of a function that returns one.

    Raises:
        NotFoundError: it is neither.
    """
    torch = sys.modules.get("torch")  # whoever has a class derived from torch's has imported it
    is_network = torch is not None and isinstance(thing, type) and issubclass(thing, torch.nn.Module)
    if torch is not None and isinstance(thing, torch.nn.Module):
        raise NotFoundError(
            "is one network, which all trials would share; name its class, or a function that makes one"
        )
    if not callable(thing) or (isinstance(thing, type) and not is_network):
        raise NotFoundError("must be a torch.nn.Module, a function that makes one, or a ModelSettings")
    names = {one for names in GIVEN.values() for one in names} & parameters_of(thing).keys()
    return settings_of(OwnModel, name, thing, frozenset({*names, "weights", "num_classes"}))


class OwnModel(FromSignature, ModelSettings):
    """A network of anybody's; its keys are its arguments.

    Attributes:
        weights: a file of initial weights, or of torchvision's models ``"torchvision:"`` and its name for them, such as
            ``"torchvision:IMAGENET1K_V1"``, with which pixels are scaled as ImageNet's; see `MobileNetV2`.
        weights_sha256: digest of that file.
    """

    weights: str | None = None
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":
        """See `ModelSettings.build`; the number of classes, of channels and of pixels is given where it is asked for.

        Raises:
            StudyError: nothing could be made of the arguments, or it is no network.
            WeightsError: the weights file can't be read, has another digest, or does not fit.
        """
        import torch  # noqa: PLC0415  (settings are read without it)

        from fairtrial.training.weights import fitting  # noqa: PLC0415
        from fairtrial.training.weights.scaling import Scaling  # noqa: PLC0415

        parameters = parameters_of(self.thing)
        sizes = {"classes": classes, "image_size": image_size, "channels": channels}
        given = {name: sizes[kind] for kind, names in GIVEN.items() for name in names if name in parameters}
        if takes_any(parameters) and not given.keys() & GIVEN["classes"]:
            given["num_classes"] = classes
        try:
            with _seeded(seed):
                network = self.thing(**self.arguments, **given)
        except Exception as error:
            raise StudyError(f"{self.where}: can't be made: {describe_error(error)}") from error
        if not isinstance(network, torch.nn.Module):
            raise StudyError(f"{self.where}: gave {type(network).__name__}, not a torch.nn.Module")
        if any(map(torch.nn.parameter.is_lazy, (*network.parameters(), *network.buffers()))):
            raise StudyError(
                f"{self.where}: has lazy layers, which draw their weights in the first step; name their sizes"
            )
        published = self._published()
        if self.weights is not None:
            path = Path(self.weights) if published is None else published.fetch()
            fitting.load(network, path, sha256=self.weights_sha256, published=published)
        if published is not None:
            scaling = Scaling(published.scaling, channels=channels)
            network.register_forward_pre_hook(lambda _, inputs: tuple(map(scaling, inputs)))
        network.register_forward_pre_hook(_contiguous)
        return network.train()

    def fetch(self, progress: DownloadProgress | None = None) -> str:
        """See `ModelSettings.fetch`."""
        if (published := self._published()) is not None:
            return digest_of(published.fetch(progress or silent))
        return "" if self.weights is None else digest_of(Path(self.weights))

    def _published(self) -> Published | None:
        """What torchvision, which is imported then, knows of its weights for this network."""
        if self.weights is None or not is_name(self.weights):
            return None
        torchvision = sys.modules.get("torchvision")
        name = self.weights.partition(":")[2]
        try:
            found = torchvision.models.get_model_weights(self.thing)  # type: ignore[union-attr]
        except (AttributeError, ValueError) as error:
            raise StudyError(f'model.weights = "{self.weights}": {self.name} is no model of torchvision\'s') from error
        if name not in found.__members__:
            known = [f"torchvision:{one}" for one in found.__members__]
            raise StudyError(f'model.weights = "{self.weights}": {did_you_mean(self.weights, known)}')
        return of_torchvision(self.weights, found[name].url, found[name].meta["_file_size"])

    @property
    def where(self) -> str:
        """What errors begin with."""
        return f'model.name = "{self.name}"'

    @model_validator(mode="after")
    def _digest_needs_a_file(self) -> Self:
        if self.weights_sha256 and not self.weights:
            raise PydanticCustomError("no_weights", "weights_sha256 is given but weights is not")
        return self


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw all random numbers from the seed, whichever generator is asked; leave the global states as they were."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002


def _contiguous(_network: "torch.nn.Module", inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give images in torch's usual memory format, because many a network begins with a view of them."""
    return tuple(one.contiguous() for one in inputs)
