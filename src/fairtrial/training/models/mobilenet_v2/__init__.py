"""MobileNetV2 (Sandler et al. 2018): its settings. The network is in `network`, which imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.registry import MODELS
from fairtrial.spec.numbers import BelowOne, Interval, Positive
from fairtrial.spec.sections import ModelSettings

if TYPE_CHECKING:
    import torch


@MODELS.register("mobilenet_v2")
class MobileNetV2(ModelSettings):
    """MobileNetV2 (Sandler et al. 2018).

    Attributes:
        stem: ``"stock"``, total stride 32, or ``"cifar"``, total stride 8: stride 1 in the first convolution
            and in the second stage.
        flavor: whose initial weights, batch-norm constants and padding: ``"torchvision"`` or ``"keras"``.
        width: width multiplier of all layers.
        dropout: rate before the classifier. The paper has none.
        weights: a file of initial weights, safetensors or torch's own; relative to the study file.
        weights_sha256: digest of that file. Filled in when the study is read; set it to pin the file.
    """

    #: Files and hashes use the older spelling of this key, so that hashes never change.
    other_spellings: ClassVar[Mapping[str, str]] = {"flavor": "flavour"}

    stem: Literal["stock", "cifar"] = "stock"
    flavor: Literal["torchvision", "keras"] = "torchvision"
    width: Annotated[Positive, AfterValidator(Interval("(0, 16]"))] = 1.0
    dropout: BelowOne = 0.0
    weights: str | None = None
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @property
    def label(self) -> str:
        """Name, stem, and other settings that differ from the default."""
        width = f", width {self.width:g}" if self.width != 1 else ""
        start = ", from given weights" if self.weights or self.weights_sha256 else ""
        return f"{self.name} with {self.stem} stem{width}{start}"

    @property
    def no_single_image(self) -> str:
        """With the stock stem the last feature map of 32x32 images is one pixel, and one value has no variance."""
        return "batch normalization can't train on with the stock stem" if self.stem == "stock" else ""

    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":  # noqa: ARG002
        """See `ModelSettings.build`; a weights file for another number of classes gives all but the classifier.

        Raises:
            WeightsError: the weights file can't be read, has another digest, or does not fit.

        Example:
            >>> network = MobileNetV2().build(classes=10, image_size=32, channels=3, seed=0)
            >>> sum(parameter.numel() for parameter in network.parameters())
            2236682
        """
        from fairtrial.training.models.mobilenet_v2 import weights  # noqa: PLC0415  (settings are read without torch)
        from fairtrial.training.models.mobilenet_v2.flavors import make_network  # noqa: PLC0415
        from fairtrial.training.models.mobilenet_v2.network import Network  # noqa: PLC0415

        network = make_network(lambda: Network(self, classes=classes, channels=channels), self.flavor, seed)
        if self.weights is not None:
            weights.load(network, Path(self.weights), sha256=self.weights_sha256)
        return network

    @model_validator(mode="before")
    @classmethod
    def _read_either_spelling(cls, table: Any) -> Any:
        if isinstance(table, Mapping) and "flavour" in table and "flavor" not in table:
            return {("flavor" if key == "flavour" else key): value for key, value in table.items()}
        return table

    @model_serializer(mode="wrap")
    def _write_older_spelling(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {self.other_spellings.get(key, key): value for key, value in write(self).items()}

    @model_validator(mode="after")
    def _digest_needs_a_file(self) -> Self:
        if self.weights_sha256 and not self.weights:
            raise PydanticCustomError("no_weights", "weights_sha256 is given but weights is not")
        return self
