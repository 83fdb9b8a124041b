"""MobileNetV2 (Sandler et al. 2018): its settings. The network is in `network`, which imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.registry import MODELS
from fairtrial.spec.numbers import BelowOne, Interval, Positive
from fairtrial.spec.sections import ModelSettings
from fairtrial.training.datasets.download import DownloadProgress, silent
from fairtrial.training.weights.published import (
    KERAS_SUFFIX,
    MOBILENET_V2,
    Published,
    ScalingName,
    digest_of,
    problem,
)

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
        weights: initial weights: published ones by their name (see `published`), or a file, safetensors, torch's own or
            Keras's, relative to the study file.
        weights_sha256: digest of that file. Filled in when the study is read; set it to pin the file.
        scaling: how pixels are scaled: ``"unit"``, from 0 to 1; ``"symmetric"``, from -1 to 1; ``"imagenet"``, to mean
            0 and variance 1 over ImageNet. By default as published weights were trained, and ``"unit"`` with others.
    """

    needs_images: ClassVar[bool] = True

    #: Files and hashes use the older spelling of this key, so that hashes never change.
    other_spellings: ClassVar[Mapping[str, str]] = {"flavor": "flavour"}
    later_keys: ClassVar[frozenset[str]] = frozenset({"scaling"})

    stem: Literal["stock", "cifar"] = "stock"
    flavor: Literal["torchvision", "keras"] = "torchvision"
    width: Annotated[Positive, AfterValidator(Interval("(0, 16]"))] = 1.0
    dropout: BelowOne = 0.0
    weights: str | None = None
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    scaling: ScalingName | None = None

    @property
    def label(self) -> str:
        """Name, stem, and other settings that differ from the default."""
        width = f", width {self.width:g}" if self.width != 1 else ""
        start = ", from given weights" if self.weights or self.weights_sha256 else ""
        start = f", from {self.published.name}" if self.published else start
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
        from fairtrial.training.models.mobilenet_v2.flavors import make_network  # noqa: PLC0415  (no torch)
        from fairtrial.training.models.mobilenet_v2.network import Network  # noqa: PLC0415
        from fairtrial.training.weights import fitting  # noqa: PLC0415

        network = make_network(lambda: Network(self, classes=classes, channels=channels), self.flavor, seed)
        if (path := self._weights_path()) is not None:
            fitting.load(network, path, sha256=self.weights_sha256, published=self.published)
        return network

    @property
    def published(self) -> Published | None:
        """The published weights that `weights` names, if it does."""
        return MOBILENET_V2.get(self.weights or "")

    @property
    def pixels(self) -> ScalingName:
        """How pixels are scaled, whether stated or not."""
        return self.scaling or (self.published.scaling if self.published else "unit")

    def fetch(self, progress: DownloadProgress | None = None) -> str:
        """See `ModelSettings.fetch`."""
        path = self._weights_path(progress)
        return "" if path is None else digest_of(path)

    def _weights_path(self, progress: DownloadProgress | None = None) -> Path | None:
        if self.published is not None:
            return self.published.fetch(progress or silent)
        return None if self.weights is None else Path(self.weights)

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

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        found = problem(self.weights or "", MOBILENET_V2, library=self.flavor, has_width_1=self.width == 1)
        if not found and (self.weights or "").endswith(KERAS_SUFFIX) and self.flavor != "keras":
            found = 'is of Keras\'s, for flavor = "keras": padding and batch norm differ'
        if found:
            context = {"weights": self.weights, "problem": found}
            raise PydanticCustomError("weights", 'weights = "{weights}": {problem}', context)
        return self
