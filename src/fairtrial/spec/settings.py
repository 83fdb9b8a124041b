"""All settings of a training run: the sections together, and how to train."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import (
    BeforeValidator,
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
from fairtrial.spec.numbers import BelowOne, Count, Decay, NonNegative, Positive, at_most
from fairtrial.spec.sections import DataSettings, ModelSettings, OptimizerSettings, ScheduleSettings, Section

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
        clip_norm: greatest norm of a step's whole gradient, which is scaled down to it (Pascanu et al. 2013), if any.
        accumulate: into how many parts, as equal as can be, a batch is split to save memory. Their gradients are added
            up before the step, so only batch norm, which sees the parts, and dropout, which draws for each, make a
            difference beyond rounding.
        label_smoothing: share of a label that is spread evenly over all classes (Szegedy et al. 2016, section 7).
        precision: of the network's arithmetic; ``"bf16"`` is torch's autocast to bfloat16, and ``"tf32"`` needs a GPU.
        ema: decay, a step, of a moving average of the weights, with which each epoch is evaluated too; None for none.
        checkpoint_seconds: least seconds between two checkpoints, of any loop; by default as many as keep the cost of
            saving below 2% of a trial's time, and at most ten minutes. It is no part of any hash: it changes no result.
        code: a digest of the code that trials run, where that is what is compared; `fairtrial.gate` sets it.
    """

    #: Keys of fairtrial's own loop that only add evaluations, and change no bit of a training.
    evaluation_keys: ClassVar[frozenset[str]] = frozenset({"evaluations_last_epoch", "recalibrate_batch_norm", "ema"})
    #: Further keys that only fairtrial's own loop has.
    loop_keys: ClassVar[frozenset[str]] = evaluation_keys | {"clip_norm", "accumulate", "label_smoothing", "precision"}
    later_keys: ClassVar[frozenset[str]] = loop_keys | {"code"}

    epochs: Annotated[Count, at_most(MOST_EPOCHS)] = 10
    batch_size: Count = 64
    evaluations_last_epoch: Annotated[Count, at_most(MOST_EVALUATIONS)] = 1
    recalibrate_batch_norm: StrictBool = False
    ema: Decay | None = None
    clip_norm: Positive | None = None
    accumulate: Count = 1
    label_smoothing: BelowOne = 0.0
    precision: Literal["float32", "bf16", "tf32"] = "float32"
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
    params: dict[str, Annotated[Scalar | list[Scalar], PlainValidator(_parameter)]] = Field(default_factory=dict)

    @property
    def recorded(self) -> tuple[str, ...]:
        """The metrics that fairtrial's own loop records with these settings."""
        training = self.training
        return recorded_metrics(
            validation=self.data.validation > 0,
            regression=self.data.is_regression,
            evaluations=training.evaluations_last_epoch,
            recalibrated=training.recalibrate_batch_norm,
            ema=training.ema is not None,
        )

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the training loop and the sections: registered ones, or ``module:Name`` of the user's own."""
        return (self.training.loop, *(getattr(self, section).name for section in REGISTRIES))

    def batches_problem(self, images: int) -> str:
        """Say why fairtrial's own loop can't train on batches of so many training images; empty if it can."""
        batch_size, evaluations = self.training.batch_size, self.training.evaluations_last_epoch
        if self.training.loop != BUILT_IN:
            return ""
        if (images % batch_size or batch_size) == 1 and self.model.no_single_image:
            why = f"leave a batch of one, which {self.model.no_single_image}"
            return f"training.batch_size = {batch_size}: {images} training images {why}"
        if (parts := self.training.accumulate) > batch_size:
            return f"training.accumulate = {parts}: must not exceed training.batch_size = {batch_size}"
        for size in (min(images, batch_size), images % batch_size):
            if parts > 1 and size and size // min(parts, size) == 1 and self.model.no_single_image:
                why = f"has a part of one, which {self.model.no_single_image}"
                return f"training.accumulate = {parts}: a batch of {size} images {why}"
        if evaluations > (batches := math.ceil(images / batch_size)):
            return f"training.evaluations_last_epoch = {evaluations}: must not exceed the {batches} batches of an epoch"
        return ""

    @model_validator(mode="after")
    def _rules_across_sections(self) -> Self:
        if self.params and self.training.loop == BUILT_IN:
            raise PydanticCustomError(
                "params", "params: fairtrial's own training loop takes none; name yours in training.loop"
            )
        if self.data.train_images and (problem := self.batches_problem(self.data.train_images)):
            raise PydanticCustomError("batches", "{problem}", {"problem": problem})
        ours = [key for key in self.training.changed_later_keys() if key in Training.loop_keys]
        if self.training.loop != BUILT_IN and ours:
            raise PydanticCustomError(
                "own_loop", "training.{key}: only fairtrial's own training loop has it; see params", {"key": ours[0]}
            )
        if self.schedule.warmup_epochs > self.training.epochs:
            raise PydanticCustomError(
                "warmup",
                "schedule.warmup_epochs = {warmup}: must not exceed training.epochs = {epochs}",
                {"warmup": self.schedule.warmup_epochs, "epochs": self.training.epochs},
            )
        return self

    @model_validator(mode="after")
    def _schedule_and_loss_can_work(self) -> Self:
        if self.training.loop == BUILT_IN and (why := self.schedule.problem(self.training.epochs, self.recorded)):
            raise PydanticCustomError("schedule", "{why}", {"why": why})
        if self.training.label_smoothing and self.data.is_regression:
            raise PydanticCustomError(
                "smoothing", "training.label_smoothing: only for classes; these data have numbers"
            )
        return self
