"""The sections of a study: what is trained, on what, and how. Frozen; an unknown key is an error.

Optimizers, schedules, models and data sets come in kinds; here are their base classes. The kinds are in the packages
that `fairtrial.registry` names, each with what it builds.
"""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias, TypeVar

from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fairtrial.registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULES, Registry, UnknownNameError
from fairtrial.spec.numbers import Count, CountOrZero, NonNegative, Positive

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike


class Section(BaseModel):
    """Base of every section: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NamedSettings(Section, ABC):
    """Base of the settings that come in kinds: optimizers, schedules, models, data sets.

    Attributes:
        name: what a study calls the kind; filled in where the class says it.
        other_spellings: keys that a file may write otherwise, with the name under which they are kept.
    """

    registry: ClassVar[Registry[Any]]
    other_spellings: ClassVar[Mapping[str, str]] = {}

    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, table: Any) -> Any:
        if not isinstance(table, Mapping) or table.get("name"):
            return table
        known = [name for name in cls.registry.names() if cls.registry.get(name) is cls]
        return {"name": known[0] if known else f"{cls.__module__}:{cls.__qualname__}", **table}

    @model_validator(mode="after")
    def _is_what_the_name_says(self) -> Self:
        if ":" not in self.name and self.registry.get(self.name) is not type(self):
            raise PydanticCustomError("class", 'name = "{name}" is another class', {"name": self.name})
        return self


class OptimizerSettings(NamedSettings):
    """Base of optimizers' settings.

    Attributes:
        lr: step size.
    """

    registry: ClassVar[Registry[Any]] = OPTIMIZERS

    lr: Positive

    @abstractmethod
    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Make the optimizer.

        Args:
            parameters: what to optimize, real floating-point tensors on one device.
        """


class ScheduleSettings(NamedSettings):
    """Base of schedules' settings: what the learning rate is multiplied by at each step.

    Attributes:
        warmup_epochs: epochs, fractions allowed, over which the rate rises linearly from 0.
    """

    registry: ClassVar[Registry[Any]] = SCHEDULES

    warmup_epochs: NonNegative = 0.0

    @abstractmethod
    def after_warmup(self, epoch: float, epochs: int) -> float:
        """Compute the factor of the learning rate as if the warm-up were over.

        Args:
            epoch: epochs done, with fractions.
            epochs: epochs of the whole training.
        """

    def lr_factor(self, epoch: float, epochs: int, step: float = 0.0) -> float:
        """Compute what the learning rate is multiplied by, warm-up included.

        Args:
            epoch: epochs done, with fractions.
            epochs: epochs of the whole training.
            step: length of one step in epochs. The warm-up counts the step about to be taken, so that the first step
                has a rate above 0 and the last one of the warm-up the full rate.
        """
        warm = min(1.0, (epoch + step) / self.warmup_epochs) if self.warmup_epochs else 1.0
        return warm * self.after_warmup(epoch, epochs)


class ModelSettings(NamedSettings):
    """Base of models' settings."""

    registry: ClassVar[Registry[Any]] = MODELS

    @abstractmethod
    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":
        """Make the network with its initial weights.

        Args:
            classes: number of logits.
            image_size: height and width of the images in pixels.
            channels: channels of the images.
            seed: what the initial weights come from, and nothing else: the global random state is left alone.

        Returns:
            A network on the CPU, in training mode, that maps images, float32 (batch, channels, height, width) in
            [0, 1], to logits (batch, classes).
        """

    @property
    def label(self) -> str:
        """The model in a few words, for what stands beside verdicts."""
        return self.name

    @property
    def no_single_image(self) -> str:
        """Why a training step can't take a batch of one image; empty if it can."""
        return ""


class DataSize(NamedTuple):
    """How many images a data set has for training and for testing."""

    train: int
    test: int


class DataSettings(NamedSettings):
    """Base of data sets' settings: which images, and how many of them.

    Attributes:
        size: how many images the whole set has.
        class_names: what the labels 0, 1, ... stand for.
        sha256: digest of the four arrays' bytes, one after the other; checked before a study where it is stated.
        train: number of training images, drawn class-balanced; all that are left by default.
        test: number of test images, drawn class-balanced; all by default.
        validation: number of images held out of the training set, class-balanced. The paper holds out none.
        subset_seed: which images a subset takes. It is the same for every seed of a study, because the data
            are a part of the question and not of the noise.
        path: a folder or archive to read the data from. A place, not a setting: it is no part of any hash,
            because whatever the source, the decoded arrays must be the same to the bit.
    """

    registry: ClassVar[Registry[Any]] = DATASETS
    size: ClassVar[DataSize]
    class_names: ClassVar[tuple[str, ...]]
    sha256: ClassVar[str] = ""

    train: Count | None = None
    test: Count | None = None
    validation: CountOrZero = 0
    subset_seed: CountOrZero = 0
    path: str | None = None

    @abstractmethod
    def arrays(self) -> "tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]":
        """Read the whole set.

        Returns:
            Training images, training labels, test images, test labels. Images are uint8, (images, size, size) or
            (images, size, size, channels); labels are class numbers from 0, (images,).
        """

    @classmethod
    def origin(cls) -> tuple[Path, str]:
        """Tell where the arrays come from: a folder, and what to call it."""
        return Path(sys.modules[cls.__module__].__file__ or "").parent, cls.__module__

    @property
    def train_images(self) -> int:
        """Number of images that a trial trains on: ``train``, or all but those held out."""
        return self.train or self.size.train - self.validation

    @property
    def test_images(self) -> int:
        """Number of images that a trial is tested on."""
        return self.test or self.size.test

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        parts, wanted = (
            ("train + validation", self.train + self.validation) if self.train else ("validation", self.validation)
        )
        if self.train_images + self.validation > self.size.train or self.train_images < 1:
            raise PydanticCustomError(
                "too_many",
                "{parts} = {wanted}: {name} has {available} training images",
                {"parts": parts, "wanted": wanted, "name": self.name, "available": self.size.train},
            )
        if self.test_images > self.size.test:
            raise PydanticCustomError(
                "too_many",
                "test = {wanted}: {name} has {available} test images",
                {"wanted": self.test, "name": self.name, "available": self.size.test},
            )
        return self


#: The name of fairtrial's own training loop.
BUILT_IN = "fairtrial"


class LoopName(str):
    """The name of a training loop that was given as a function; the name alone is stored, compared and sent to workers.

    Attributes:
        function: the function.
    """

    __slots__ = ("function",)
    function: Callable[..., object]

    @classmethod
    def of(cls, function: Callable[..., object]) -> Self:
        """Name a function by its module and its place there."""
        named = function if hasattr(function, "__qualname__") else type(function)
        name = cls(f"{named.__module__}:{named.__qualname__}")
        name.function = function
        return name

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Let only the name travel; what gets it imports the function."""
        return str, (str(self),)


def _loop_name(loop: object) -> object:
    if callable(loop) and not isinstance(loop, str):
        return LoopName.of(loop)
    module, _, function = loop.partition(":") if isinstance(loop, str) else ("", "", "")
    parts = [*module.split("."), *(_NOT_IMPORTABLE.sub("_", function).split("."))]
    if loop != BUILT_IN and not all(part.isidentifier() for part in parts):
        raise PydanticCustomError("loop", 'must be "fairtrial" or "module:function"')
    return loop


#: What Python calls functions that have no place in a module; they run in the process that made them.
_NOT_IMPORTABLE = re.compile(r"<(locals|lambda)>")


class Training(Section):
    """How long, and in what steps.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; the last batch of an epoch may be smaller, as in Keras's ``fit``.
        loop: what trains: fairtrial itself, or a function of the user's as ``"module:function"``; in Python the
            function itself. It gets the trial's context, and takes from its settings what it understands.
    """

    epochs: Count = 10
    batch_size: Count = 64
    loop: Annotated[str, PlainValidator(_loop_name), PlainSerializer(str)] = BUILT_IN


#: The sections that come in kinds, each with its registry.
REGISTRIES: dict[str, Registry[Any]] = {
    "data": DATASETS,
    "model": MODELS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}

AnySettings = TypeVar("AnySettings", bound=NamedSettings)


def _choose(registry: "Registry[type[AnySettings]]") -> BeforeValidator:
    """Read a section by the class that its `name` stands for."""

    def choose(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        name = value.get("name", registry.default)
        if not isinstance(name, str):
            raise PydanticCustomError("unknown_name", "must be a string")
        try:
            kind = registry.get(name)
        except UnknownNameError as error:
            raise PydanticCustomError("unknown_name", "{hint}", {"hint": error.hint}) from error
        return kind.model_validate({**value, "name": name})

    return BeforeValidator(choose)


def _default(registry: "Registry[type[AnySettings]]") -> "Callable[[], AnySettings]":
    def build() -> AnySettings:
        return registry.get(registry.default)()

    return build


#: A plain value in a study file.
Scalar: TypeAlias = StrictBool | StrictInt | Annotated[StrictFloat, AllowInfNan(False)] | StrictStr


class Settings(Section):
    """Everything that decides a training run but the seed: one arm, fully resolved.

    Attributes:
        params: settings that a training loop of the user's own understands; fairtrial's has no use for them.
    """

    data: Annotated[SerializeAsAny[DataSettings], _choose(DATASETS)] = Field(default_factory=_default(DATASETS))
    model: Annotated[SerializeAsAny[ModelSettings], _choose(MODELS)] = Field(default_factory=_default(MODELS))
    training: Training = Training()
    optimizer: Annotated[SerializeAsAny[OptimizerSettings], _choose(OPTIMIZERS)] = Field(
        default_factory=_default(OPTIMIZERS)
    )
    schedule: Annotated[SerializeAsAny[ScheduleSettings], _choose(SCHEDULES)] = Field(
        default_factory=_default(SCHEDULES)
    )
    params: dict[str, Scalar | list[Scalar]] = {}

    @model_validator(mode="after")
    def _rules_across_sections(self) -> Self:
        if self.params and self.training.loop == BUILT_IN:
            raise PydanticCustomError(
                "params", "params: fairtrial's own training loop has none; name yours in training.loop"
            )
        self._check_last_batch()
        if self.schedule.warmup_epochs > self.training.epochs:
            raise PydanticCustomError(
                "warmup",
                "schedule.warmup_epochs = {warmup}: must not exceed training.epochs = {epochs}",
                {"warmup": self.schedule.warmup_epochs, "epochs": self.training.epochs},
            )
        return self

    def _check_last_batch(self) -> None:
        images, batch_size = self.data.train_images, self.training.batch_size
        if (images % batch_size or batch_size) == 1 and self.training.loop == BUILT_IN and self.model.no_single_image:
            raise PydanticCustomError(
                "last_batch",
                "training.batch_size = {batch_size}: {images} training images leave a batch of one, which {why}",
                {"batch_size": batch_size, "images": images, "why": self.model.no_single_image},
            )
