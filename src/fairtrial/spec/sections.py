"""Base classes of the sections of a study: of optimizers, schedules, models and data sets."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULES, Registry, did_you_mean
from fairtrial.spec.numbers import Count, CountOrZero, NonNegative, Positive

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
    #: Whether the optimizer's ``step`` gets a closure, which evaluates loss and gradient of the batch again.
    uses_closure: ClassVar[bool] = False

    lr: Positive

    @abstractmethod
    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Build the optimizer of these parameters, real floating-point tensors on one device."""


class ScheduleSettings(NamedSettings):
    """Base of schedules' settings: what the learning rate is multiplied by at each step.

    Attributes:
        warmup_epochs: epochs, fractions allowed, over which the rate rises linearly from 0.
        per: whether the rate changes at every step, or only at the start of an epoch.
    """

    registry: ClassVar[Registry[Any]] = SCHEDULES
    later_keys: ClassVar[frozenset[str]] = frozenset({"per"})

    warmup_epochs: NonNegative = 0.0
    per: Literal["step", "epoch"] = "step"

    #: Whether `lr_factor` tells the rate without a training; if not, only stepping the scheduler does.
    known_beforehand: ClassVar[bool] = True

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
        epoch, step = self.changes_at(epoch, step)
        warm = min(1.0, (epoch + step) / self.warmup_epochs) if self.warmup_epochs else 1.0
        return warm * self.after_warmup(epoch, epochs)

    def changes_at(self, epoch: float, step: float) -> tuple[float, float]:
        """Tell when the rate last changed, in epochs, and how long it stays as it is: a step, or a whole epoch."""
        return (math.floor(epoch), 1.0) if self.per == "epoch" else (epoch, step)

    @property
    def watched(self) -> str | None:
        """The metric that the schedule reads after each epoch, such as ``"train_loss"``; None if it reads none."""
        return None

    def after_records(self, values: Sequence[float]) -> float:  # noqa: ARG002
        """Compute a further factor from the watched metric's value of each epoch so far."""
        return 1.0

    def problem(self, epochs: int, recorded: Sequence[str]) -> str:  # noqa: ARG002
        """Say what can't work in a training of so many epochs that records these metrics; empty if all can."""
        return ""


class ModelSettings(NamedSettings):
    """Base of models' settings."""

    registry: ClassVar[Registry[Any]] = MODELS
    #: Whether it takes nothing but images.
    needs_images: ClassVar[bool] = False

    @abstractmethod
    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":
        """Build the network with its initial weights.

        Args:
            classes: number of outputs: logits, or the numbers to predict.
            image_size: height and width of the images in pixels; 1 where the inputs are no images.
            channels: channels of the images; of other inputs, how many numbers each is made of.
            seed: the only source of the initial weights; the global random state is left alone.

        Returns:
            A network on the CPU, in training mode, that maps images, float32 (batch, channels, height, width) in
            [0, 1], or other inputs as `DataSettings.arrays` gives them, such as rows, float32 (batch, channels), to
            outputs (batch, classes).
        """

    def fetch(self, progress: "Callable[[int, int | None, str], None] | None" = None) -> str:  # noqa: ARG002
        """Make sure that a file of initial weights is on this machine; return its SHA-256, empty if there is none.

        Raises:
            WeightsError: it can't be fetched.
        """
        return ""

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


#: What can be done to training images, in the order in which it is done.
AUGMENTATIONS = ("crop", "flip", "cutout", "mixup")


def _in_order(value: object) -> object:
    """Read ``"none"``, one name or a list of names, and put them in the order of `AUGMENTATIONS`."""
    names = () if value == "none" else [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise PydanticCustomError("augment", "must be a list of names, such as {example}", {"example": _EXAMPLE})
    for name in names:
        if name not in AUGMENTATIONS:
            raise PydanticCustomError("augment", "{hint}", {"hint": did_you_mean(name, AUGMENTATIONS)})
    return tuple(sorted(set(names), key=AUGMENTATIONS.index))


_EXAMPLE = '["crop", "flip"]'


class DataSettings(NamedSettings):
    """Base of data sets' settings: which images, and how many of them. What is said of images is true of rows, too.

    Attributes:
        size: how many images the whole set has; None if that is known only once it was read.
        class_names: names of the labels 0, 1, ...; none if they are numbered.
        sha256: digest of the four arrays' bytes, one after the other; if stated, it is checked before a study.
        train: number of training images, drawn class-balanced; by default all that are not held out.
        test: number of test images, drawn class-balanced; all by default.
        validation: number of images held out of the training set, class-balanced.
        subset_seed: which images a subset takes; the same for every seed of a study, because the data are a part of the
            question and not of the noise.
        path: a folder or archive to read the data from. It is no part of any hash: whatever the source, the decoded
            arrays must be the same to the bit.
        augment: what is done to training images, see `fairtrial.training.augmentation`.
        crop_padding: pixels by which ``"crop"`` moves an image at most.
        cutout_size: side of the square that ``"cutout"`` blanks, in pixels.
        mixup_alpha: both parameters of the beta distribution of ``"mixup"``.
    """

    registry: ClassVar[Registry[Any]] = DATASETS
    later_keys: ClassVar[frozenset[str]] = frozenset({"augment", "crop_padding", "cutout_size", "mixup_alpha"})
    size: ClassVar[DataSize | None] = None
    class_names: ClassVar[tuple[str, ...]] = ()
    sha256: ClassVar[str] = ""

    train: Count | None = None
    test: Count | None = None
    validation: CountOrZero = 0
    subset_seed: CountOrZero = 0
    path: str | None = None
    augment: Annotated[tuple[str, ...], BeforeValidator(_in_order)] = ()
    crop_padding: Count = 4
    cutout_size: Count = 16
    mixup_alpha: Positive = 0.2

    @abstractmethod
    def arrays(self) -> "tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]":
        """Read the whole set.

        Returns:
            Training images, training labels, test images, test labels. Images are uint8, (images, size, size) or
            (images, size, size, channels); anything else that a network takes is floats or integers, of which it gets
            the rows as they are: float32 or int64, (rows, ...). Labels are class numbers from 0, (images,); for
            regression they are numbers, (rows,) or (rows, targets).
        """

    @classmethod
    def origin(cls) -> tuple[Path, str]:
        """Name where the arrays come from: a folder, and a name for it."""
        return Path(sys.modules[cls.__module__].__file__ or "").parent, cls.__module__

    @property
    def label(self) -> str:
        """The data in a few words, for the notes beside verdicts."""
        return self.name

    @property
    def is_regression(self) -> bool:
        """Whether there are numbers to predict, not classes."""
        return False

    @property
    def class_count(self) -> int | None:
        """How many classes there are; None if that is known only once the data were read."""
        return len(self.class_names) or None

    @property
    def train_images(self) -> int | None:
        """Number of images that a trial trains on: ``train``, or all but those held out; None if not known yet."""
        return self.train or (self.size.train - self.validation if self.size else None)

    @property
    def test_images(self) -> int | None:
        """Number of images that a trial is tested on; None if not known yet."""
        return self.test or (self.size.test if self.size else None)

    def too_many(self, size: DataSize) -> str:
        """Say what asks for more images than a set of this size has; empty if nothing does."""
        held_out = "train + validation" if self.train else "validation"
        for key, wanted, kind, available in (
            (held_out, (self.train or 1) + self.validation, "training", size.train),
            ("test", self.test or size.test, "test", size.test),
        ):
            if wanted > available:
                return f"{key} = {wanted}: {self.name} has {available} {kind} images"
        return ""

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.size and (problem := self.too_many(self.size)):
            raise PydanticCustomError("too_many", "{problem}", {"problem": problem})
        return self
