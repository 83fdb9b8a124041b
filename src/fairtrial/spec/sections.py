"""The sections of a study, with the base classes of optimizers, schedules, models and data sets."""

import hashlib
import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    StrictBool,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fairtrial.registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULES, Registry, UnknownNameError
from fairtrial.sources import describe
from fairtrial.spec.limits import LONGEST_LABEL, MOST_EPOCHS, MOST_EVALUATIONS
from fairtrial.spec.metrics import recorded_metrics
from fairtrial.spec.numbers import Count, CountOrZero, Decay, NonNegative, Positive, at_most

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike


class Section(BaseModel):
    """Base of every section: frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Keys that were added after studies had been hashed; `content` leaves them out at their default.
    later_keys: ClassVar[frozenset[str]] = frozenset()

    def changed_later_keys(self) -> list[str]:
        """Name the later keys that are not at their default."""
        if not self.later_keys:
            return []
        fields = type(self).model_fields
        return sorted(key for key in self.later_keys if getattr(self, key) != fields[key].default)


class NamedSettings(Section, ABC):
    """Base of the settings of optimizers, schedules, models and data sets, which a registry lists by name."""

    registry: ClassVar[Registry[Any]]
    #: Keys that a file may spell differently, each with the spelling used here.
    other_spellings: ClassVar[Mapping[str, str]] = {}

    #: What a study calls the class; by default the name under which it is registered.
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, table: Any) -> Any:
        if not isinstance(table, Mapping) or table.get("name"):
            return table
        known = [name for name in cls.registry.names() if cls.registry.get(name) is cls]
        return {"name": known[0] if known else f"{cls.__module__}:{cls.__qualname__}", **table}

    @model_validator(mode="after")
    def _name_fits(self) -> Self:
        if ":" not in self.name and self.registry.get(self.name) is not type(self):
            raise PydanticCustomError("class", 'name = "{name}" is another class', {"name": self.name})
        return self


class OptimizerSettings(NamedSettings):
    """Base of optimizers' settings.

    Attributes:
        lr: learning rate.
    """

    registry: ClassVar[Registry[Any]] = OPTIMIZERS

    lr: Positive

    @abstractmethod
    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Build the optimizer of these parameters, real floating-point tensors on one device."""


class ScheduleSettings(NamedSettings):
    """Base of schedules' settings: what the learning rate is multiplied by at each step.

    Attributes:
        warmup_epochs: epochs, fractions allowed, over which the rate rises linearly from 0.
    """

    registry: ClassVar[Registry[Any]] = SCHEDULES

    warmup_epochs: NonNegative = 0.0

    @abstractmethod
    def after_warmup(self, epoch: float, epochs: int) -> float:
        """Compute the factor of the learning rate after ``epoch`` of ``epochs`` epochs, without the warm-up."""

    def lr_factor(self, epoch: float, epochs: int, step: float = 0.0) -> float:
        """Compute the factor of the learning rate, warm-up included.

        Args:
            epoch: epochs done, with fractions.
            epochs: epochs of the whole training.
            step: length of one step in epochs. The warm-up counts the next step as done, so that the first step has a
                rate above 0 and the last one of the warm-up the full rate.
        """
        warm = min(1.0, (epoch + step) / self.warmup_epochs) if self.warmup_epochs else 1.0
        return warm * self.after_warmup(epoch, epochs)


class ModelSettings(NamedSettings):
    """Base of models' settings."""

    registry: ClassVar[Registry[Any]] = MODELS

    @abstractmethod
    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":
        """Build the network with its initial weights.

        Args:
            classes: number of logits.
            image_size: height and width of the images in pixels.
            channels: channels of the images.
            seed: the only source of the initial weights; the global random state is left alone.

        Returns:
            A network on the CPU, in training mode, that maps images, float32 (batch, channels, height, width) in
            [0, 1], to logits (batch, classes).
        """

    @property
    def label(self) -> str:
        """The model in a few words, for the notes beside verdicts."""
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
        class_names: names of the labels 0, 1, ...
        sha256: digest of the four arrays' bytes, one after the other; if stated, it is checked before a study.
        train: number of training images, drawn class-balanced; by default all that are not held out.
        test: number of test images, drawn class-balanced; all by default.
        validation: number of images held out of the training set, class-balanced.
        subset_seed: which images a subset takes; the same for every seed of a study, because the data are a part of the
            question and not of the noise.
        path: a folder or archive to read the data from. It is no part of any hash: whatever the source, the decoded
            arrays must be the same to the bit.
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
        """Name where the arrays come from: a folder, and a name for it."""
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
        held_out = "train + validation" if self.train else "validation"
        for key, wanted, kind, available in (
            (held_out, (self.train or 1) + self.validation, "training", self.size.train),
            ("test", self.test_images, "test", self.size.test),
        ):
            if wanted > available:
                context = {"key": key, "wanted": wanted, "name": self.name, "available": available, "kind": kind}
                raise PydanticCustomError("too_many", "{key} = {wanted}: {name} has {available} {kind} images", context)
        return self


#: The name of fairtrial's own training loop.
BUILT_IN = "fairtrial"


class LoopName(str):
    """The name of a training loop given as a function; only the name is stored, compared and sent to workers."""

    __slots__ = ("function",)
    function: Callable[..., object]

    @classmethod
    def of(cls, function: Callable[..., object]) -> Self:
        """Name a function by its module and its qualified name.

        A function that no module has by that name is known by a digest of its code and of what it captured too: an
        edited function of a notebook, or another closure, is another training loop.
        """
        named: Any = function
        while isinstance(named, partial):
            named = named.func
        named = named if hasattr(named, "__qualname__") else type(named)
        name = f"{named.__module__}:{named.__qualname__}"
        if named is not function or name.startswith("__main__:") or "<" in name:
            name += f"#{hashlib.sha256(repr(describe(function)).encode()).hexdigest()[:8]}"
        loop = cls(name)
        loop.function = function
        return loop

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle the name only; the receiver imports the function."""
        return str, (str(self),)


def _loop_name(loop: object) -> object:
    if callable(loop) and not isinstance(loop, str):
        return LoopName.of(loop)
    module, _, function = loop.partition("#")[0].partition(":") if isinstance(loop, str) else ("", "", "")
    parts = [*module.split("."), *(_NOT_IMPORTABLE.sub("_", function).split("."))]
    if len(str(loop)) > LONGEST_LABEL or (loop != BUILT_IN and not all(part.isidentifier() for part in parts)):
        raise PydanticCustomError("loop", 'must be "fairtrial" or "module:function"')
    return loop


#: Parts of the names of functions that can't be imported; these run in the process that made them.
_NOT_IMPORTABLE = re.compile(r"<(locals|lambda)>")


class Training(Section):
    """How to train, and how to evaluate.

    Attributes:
        epochs: how many.
        batch_size: images of a step. The last batch of an epoch may be smaller, as in Keras's ``fit``.
        loop: ``"fairtrial"``, ``"module:function"`` or, in Python, a function. Most other keys are for fairtrial's own.
        evaluations_last_epoch: how often the last epoch is evaluated, at equal distances, the last time at its end.
        recalibrate_batch_norm: evaluate each epoch also with statistics of batch norm recomputed from training batches.
        ema: decay, a step, of a moving average of the weights, with which each epoch is evaluated too; None for none.
        checkpoint_seconds: least seconds between two checkpoints, of any loop; by default as many as keep the cost of
            saving below 2% of a trial's time, and at most ten minutes. It is no part of any hash: it changes no result.
        code: a digest of the code that trials run, where that is what is compared; `fairtrial.gate` sets it.
    """

    #: Keys of fairtrial's own loop that only add evaluations, and change no bit of a training.
    evaluation_keys: ClassVar[frozenset[str]] = frozenset({"evaluations_last_epoch", "recalibrate_batch_norm", "ema"})
    later_keys: ClassVar[frozenset[str]] = evaluation_keys | {"code"}

    epochs: Annotated[Count, at_most(MOST_EPOCHS)] = 10
    batch_size: Count = 64
    evaluations_last_epoch: Annotated[Count, at_most(MOST_EVALUATIONS)] = 1
    recalibrate_batch_norm: StrictBool = False
    ema: Decay | None = None
    checkpoint_seconds: NonNegative | None = None
    loop: Annotated[str, PlainValidator(_loop_name), PlainSerializer(str)] = BUILT_IN
    code: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)] | None = None


#: The sections with a name, each with its registry.
REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (DATASETS, MODELS, OPTIMIZERS, SCHEDULES)
}


def _choose(registry: Registry[Any]) -> BeforeValidator:
    """Read a section by the class that its `name` refers to."""

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


#: A section that is left out is read as an empty table.
_EMPTY: Any = Field(default_factory=dict, validate_default=True)

#: A plain value in a study file.
Scalar: TypeAlias = bool | int | float | str


def _parameter(value: object) -> object:
    """Check a parameter here, because pydantic reports a union's failure once for each of its types."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, Scalar) and (isinstance(item, str) or math.isfinite(item)) for item in items):
        raise PydanticCustomError("parameter", "must be a finite number, text, true or false, or a list of these")
    return items if isinstance(value, list | tuple) else value


class Settings(Section):
    """Everything that decides a training run but the seed; `params` are for a user's own training loop."""

    data: Annotated[SerializeAsAny[DataSettings], _choose(DATASETS)] = _EMPTY
    model: Annotated[SerializeAsAny[ModelSettings], _choose(MODELS)] = _EMPTY
    training: Training = Training()
    optimizer: Annotated[SerializeAsAny[OptimizerSettings], _choose(OPTIMIZERS)] = _EMPTY
    schedule: Annotated[SerializeAsAny[ScheduleSettings], _choose(SCHEDULES)] = _EMPTY
    params: dict[str, Annotated[Scalar | list[Scalar], PlainValidator(_parameter)]] = {}

    @property
    def recorded(self) -> tuple[str, ...]:
        """The metrics that fairtrial's own loop records with these settings."""
        training = self.training
        return recorded_metrics(
            validation=self.data.validation > 0,
            evaluations=training.evaluations_last_epoch,
            recalibrated=training.recalibrate_batch_norm,
            ema=training.ema is not None,
        )

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the training loop and the sections: registered ones, or ``module:Name`` of the user's own."""
        return (self.training.loop, *(getattr(self, section).name for section in REGISTRIES))

    @model_validator(mode="after")
    def _rules_across_sections(self) -> Self:
        if self.params and self.training.loop == BUILT_IN:
            raise PydanticCustomError(
                "params", "params: fairtrial's own training loop takes none; name yours in training.loop"
            )
        images, batch_size = self.data.train_images, self.training.batch_size
        if (images % batch_size or batch_size) == 1 and self.training.loop == BUILT_IN and self.model.no_single_image:
            raise PydanticCustomError(
                "last_batch",
                "training.batch_size = {batch_size}: {images} training images leave a batch of one, which {why}",
                {"batch_size": batch_size, "images": images, "why": self.model.no_single_image},
            )
        ours = [key for key in self.training.changed_later_keys() if key in Training.evaluation_keys]
        if self.training.loop != BUILT_IN and ours:
            raise PydanticCustomError(
                "own_loop", "training.{key}: only fairtrial's own training loop has it; see params", {"key": ours[0]}
            )
        batches, evaluations = math.ceil(images / batch_size), self.training.evaluations_last_epoch
        if self.training.loop == BUILT_IN and evaluations > batches:
            raise PydanticCustomError(
                "evaluations",
                "training.evaluations_last_epoch = {evaluations}: must not exceed the {batches} batches of an epoch",
                {"evaluations": evaluations, "batches": batches},
            )
        if self.schedule.warmup_epochs > self.training.epochs:
            raise PydanticCustomError(
                "warmup",
                "schedule.warmup_epochs = {warmup}: must not exceed training.epochs = {epochs}",
                {"warmup": self.schedule.warmup_epochs, "epochs": self.training.epochs},
            )
        return self
