"""The sections of a study: what is trained, on what, and how. Frozen; an unknown key is an error."""

import re
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, Self, TypeAlias

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fairtrial.spec.numbers import BelowOne, Count, CountOrZero, Fraction, NonNegative, Positive


class Section(BaseModel):
    """Base of every section: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSize(NamedTuple):
    """How many images a data set has for training and for testing."""

    train: int
    test: int


#: The data sets that fairtrial knows. The digits have no official split; ours is stratified (see `training.datasets`).
DATA_SIZES = {"cifar10": DataSize(50_000, 10_000), "digits": DataSize(1_437, 360)}


class Data(Section):
    """Which images, and how many of them.

    Attributes:
        name: ``"cifar10"`` (Krizhevsky 2009) or ``"digits"`` (scikit-learn's, upsampled to 32x32 RGB).
        train: number of training images, drawn class-balanced; all that are left by default.
        test: number of test images, drawn class-balanced; all by default.
        validation: number of images held out of the training set, class-balanced. The paper holds out none.
        subset_seed: which images a subset takes. It is the same for every seed of a study, because the data
            are a part of the question and not of the noise.
        path: a folder or archive to read the data from. A place, not a setting: it is no part of any hash,
            because whatever the source, the decoded arrays must be the same to the bit.
    """

    name: Literal["cifar10", "digits"] = "cifar10"
    train: Count | None = None
    test: Count | None = None
    validation: CountOrZero = 0
    subset_seed: CountOrZero = 0
    path: str | None = None

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        size = DATA_SIZES[self.name]
        wanted = (self.train or 1) + self.validation
        if wanted > size.train:
            parts = "train + validation" if self.train else "validation"
            raise PydanticCustomError(
                "too_many",
                "{parts} = {wanted}: {name} has {available} training images",
                {
                    "parts": parts,
                    "wanted": wanted if self.train else self.validation,
                    "name": self.name,
                    "available": size.train,
                },
            )
        if (self.test or 0) > size.test:
            raise PydanticCustomError(
                "too_many",
                "test = {wanted}: {name} has {available} test images",
                {"wanted": self.test, "name": self.name, "available": size.test},
            )
        return self


class Model(Section):
    """Which network.

    Attributes:
        name: ``"mobilenet_v2"`` (Sandler et al. 2018).
        stem: ``"stock"``, total stride 32, or ``"cifar"``, total stride 8: stride 1 in the first convolution
            and in the second stage.
        flavour: whose initial weights, batch-norm constants and padding: ``"torchvision"`` or ``"keras"``.
        width: width multiplier of all layers.
        dropout: rate before the classifier. The paper has none.
        weights: a file of initial weights, safetensors or torch's own; relative to the study file.
        weights_sha256: digest of that file. Filled in when the study is read; state it to pin the file.
    """

    name: Literal["mobilenet_v2"] = "mobilenet_v2"
    stem: Literal["stock", "cifar"] = "stock"
    flavour: Literal["torchvision", "keras"] = "torchvision"
    width: Positive = 1.0
    dropout: BelowOne = 0.0
    weights: str | None = None
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _digest_needs_a_file(self) -> Self:
        if self.weights_sha256 and not self.weights:
            raise PydanticCustomError("no_weights", "weights_sha256 is given but weights is not")
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


class Adam(Section):
    """Adam (Kingma & Ba 2014, algorithm 1).

    Attributes:
        lr: step size alpha.
        betas: decay rates of the running means of the gradient and of its square.
        eps: added to the denominator.
        eps_convention: ``"torch"`` adds eps to the bias-corrected root, as algorithm 1 and the paper do;
            ``"keras"`` adds it to the uncorrected root ("epsilon hat", the end of section 2), as Keras and
            TensorFlow do. The same number is another optimizer there, most of all in the first
            ``1 / (1 - beta2)`` steps.
        weight_decay: L2 penalty, added to the gradient.
    """

    name: Literal["adam"] = "adam"
    lr: Positive = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    eps_convention: Literal["torch", "keras"] = "torch"
    weight_decay: NonNegative = 0.0


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2). Attributes as `Adam`'s."""

    name: Literal["adamw"]
    lr: Positive = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    eps_convention: Literal["torch", "keras"] = "torch"
    weight_decay: NonNegative = 1e-2


class SGD(Section):
    """Stochastic gradient descent with optional momentum (Sutskever et al. 2013, as torch writes it).

    Attributes:
        lr: step size.
        momentum: decay rate of the velocity.
        nesterov: look ahead along the velocity; needs momentum.
        weight_decay: L2 penalty, added to the gradient.
    """

    name: Literal["sgd"]
    lr: Positive = 1e-2
    momentum: BelowOne = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise PydanticCustomError("nesterov", "nesterov = true needs a momentum above 0")
        return self


class Constant(Section):
    """The learning rate stays as it is, after an optional warm-up.

    Attributes:
        warmup_epochs: epochs, fractions allowed, over which the rate rises linearly from 0. Every schedule
            has it.
    """

    name: Literal["constant"] = "constant"
    warmup_epochs: NonNegative = 0.0


class Cosine(Section):
    """Half a cosine from the learning rate to a fraction of it (Loshchilov & Hutter 2017, eq. 5, no restarts).

    Attributes:
        warmup_epochs: as `Constant`'s.
        final: the last rate as a fraction of the first.
    """

    name: Literal["cosine"]
    warmup_epochs: NonNegative = 0.0
    final: Fraction = 0.0


class Linear(Section):
    """A straight line from the learning rate to a fraction of it. Attributes as `Cosine`'s."""

    name: Literal["linear"]
    warmup_epochs: NonNegative = 0.0
    final: Fraction = 0.0


class Step(Section):
    """The learning rate is multiplied by ``factor`` at the start of each epoch named in ``milestones``.

    Attributes:
        warmup_epochs: as `Constant`'s.
        milestones: finished epochs after which the rate drops; rising.
        factor: what the rate is multiplied by.
    """

    name: Literal["step"]
    warmup_epochs: NonNegative = 0.0
    milestones: tuple[Count, ...]
    factor: Positive = 0.1

    @model_validator(mode="after")
    def _milestones_rise(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise PydanticCustomError("milestones", "milestones must rise")
        return self


#: For each section that comes in kinds, the kind that is meant when `name` is left out.
DEFAULT_KIND = {"optimizer": "adam", "schedule": "constant"}


def _kind(section: str) -> Discriminator:
    """Choose the kind of a section by its `name`, with a default."""

    def choose(value: object) -> object:
        if isinstance(value, dict):
            return value.get("name", DEFAULT_KIND[section])
        return getattr(value, "name", None)

    return Discriminator(
        choose,
        custom_error_type="kind",
        custom_error_message="must be one of the known names",
    )


Optimizer = Annotated[
    Annotated[Adam, Tag("adam")] | Annotated[AdamW, Tag("adamw")] | Annotated[SGD, Tag("sgd")],
    _kind("optimizer"),
]
Schedule = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Step, Tag("step")],
    _kind("schedule"),
]

#: The kinds of each section that has them, by `name`.
KINDS: dict[str, dict[str, type[Section]]] = {
    "optimizer": {"adam": Adam, "adamw": AdamW, "sgd": SGD},
    "schedule": {"constant": Constant, "cosine": Cosine, "linear": Linear, "step": Step},
}


#: A plain value in a study file.
Scalar: TypeAlias = StrictBool | StrictInt | Annotated[StrictFloat, AllowInfNan(False)] | StrictStr


class Settings(Section):
    """Everything that decides a training run but the seed: one arm, fully resolved.

    Attributes:
        params: settings that a training loop of the user's own understands; fairtrial's has no use for them.
    """

    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    optimizer: Optimizer = Adam()
    schedule: Schedule = Constant()
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
        """Refuse a batch of one image where the last feature map is one pixel: batch norm has no variance there."""
        images = self.data.train or DATA_SIZES[self.data.name].train - self.data.validation
        last = (images % self.training.batch_size) or self.training.batch_size
        if last == 1 and self.training.loop == BUILT_IN and self.model.stem == "stock":
            raise PydanticCustomError(
                "last_batch",
                "training.batch_size = {batch_size}: {images} training images leave a batch of one, which batch "
                "normalisation can't train on with the stock stem",
                {"batch_size": self.training.batch_size, "images": images},
            )
