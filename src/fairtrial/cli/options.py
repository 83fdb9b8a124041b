"""Arguments and options that commands share."""

import inspect
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from fairtrial.errors import FairtrialError
from fairtrial.executors.limits import parse_bytes, parse_seconds
from fairtrial.executors.slots import DEVICE_VARIABLE
from fairtrial.registry import EXECUTORS, UnknownNameError

if TYPE_CHECKING:
    from fairtrial.callbacks import Callback
    from fairtrial.executors.base import Executor

T = TypeVar("T")

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A TOML file, the name of a study that ships with fairtrial, or NAME or NAME@HASH of one in the store.",
    ),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the study, such as training.epochs=3; repeatable."
    ),
]
StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", envvar="FAIRTRIAL_STORE", help="A SQLite file or a PostgreSQL URL.")
]
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Trials to run in parallel; by default one per GPU, or as many as the cores allow."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Threads per trial; by default 1. The number can change the last digits of a result."
    ),
]


def _parse(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        metavar="DURATION",
        parser=partial(_parse, parse_seconds),
        help="Fail a trial that takes longer, such as 90s, 30m or 2h.",
    ),
]
MaxTimeOption = Annotated[
    float | None,
    typer.Option(
        metavar="DURATION", parser=partial(_parse, parse_seconds), help="Time after which it ends, such as 30m or 2h."
    ),
]
MemoryLimitOption = Annotated[
    int | None,
    typer.Option(
        metavar="SIZE",
        parser=partial(_parse, parse_bytes),
        help="Fail a trial whose worker needs more memory, such as 2GiB or 800MB.",
    ),
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="Where trials run: auto (this machine, its GPUs if there are any), local (worker processes), cuda (GPUs, "
        "with many trials each), ray (a cluster) or inline (this process).",
    ),
]
TrialsPerGpuOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Trials to run side by side on each GPU; by default as many as pay off; on Ray 16."
    ),
]


def _choose_device(name: str | None) -> str | None:
    """Choose the device of this process and of all that it starts; training checks the name."""
    if name is not None:
        os.environ[DEVICE_VARIABLE] = name
    return name


DeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=_choose_device,
        help="Where to train: cpu, cuda (all GPUs), cuda:1 (that one) or mps; by default all GPUs, if there are any. "
        f"{DEVICE_VARIABLE} chooses it, too.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="The Ray cluster: auto or HOST:PORT; by default Ray starts on this machine."),
]
CheckpointsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder or URL for the checkpoints of running trials, shared by all nodes; by default beside the store.",
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, max=65535, help="The live page's port, by default 8484; 0 is any free one."),
]
TensorBoardOption = Annotated[
    str | None,
    typer.Option("--tensorboard", metavar="FOLDER", help="Write TensorBoard's event files to a folder, too."),
]
MLflowOption = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="Log to MLflow, too: http://HOST:PORT or sqlite:///mlflow.db."),
]
WandbOption = Annotated[
    str | None,
    typer.Option(
        "--wandb",
        metavar="[PROJECT]",
        help="Log to Weights & Biases, too; by default to a project named like the study.",
    ),
]
#: Of runs that were made elsewhere.
ArmOption = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The column with the arms; of several, each combination is an arm: a,b."),
]
SeedOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column with the seeds. Without it, runs are not paired.")
]
MeasureOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A column with one value for each run; with --epoch, best_NAME, final_NAME or mean_lastK_NAME of a "
        "column NAME.",
    ),
]
ReferenceOption = Annotated[str | None, typer.Option(metavar="ARM", help="The arm that the others are compared with.")]
MarginOption = Annotated[
    float | None,
    typer.Option(metavar="SIZE", help="Differences up to this do not matter, in the measure's own unit."),
]
EpochOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column that counts epochs or steps within a run.")
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column with repeated measurements of a run, such as episodes or folds, whose mean counts; rows if "
        "each row is one.",
    ),
]
WideOption = Annotated[
    str | None,
    typer.Option(metavar="COLUMNS", help="Instead of --arm: columns that are an arm each, with a row for each seed."),
]
DirectionOption = Annotated[
    Literal["higher", "lower"] | None,
    typer.Option(help="Which way is better, if the measure's name does not say."),
]
UnitOption = Annotated[
    Literal["fraction", "percent", "seconds", "plain"] | None,
    typer.Option(help="The measure's unit, if its name does not say."),
]


def make_executor(name: str, **options: object) -> "Executor":
    """Construct an executor; an unknown one, or an option that requires another one, is a FairtrialError."""
    given = {option: value for option, value in options.items() if value is not None}
    try:
        executor = EXECUTORS.get(name)
    except UnknownNameError as error:
        raise FairtrialError(f"--executor {name}: {error.hint}") from error
    for option in given.keys() - inspect.signature(executor).parameters.keys():
        others = [other for other in EXECUTORS.names() if option in inspect.signature(EXECUTORS.get(other)).parameters]
        raise FairtrialError(f"--{option.replace('_', '-')}: requires --executor {' or '.join(others)}")
    made: Executor = executor(**given)
    return made


def make_trackers(
    tensorboard: str | None, mlflow: str | None, wandb: str | None, say: Callable[[str], None]
) -> "list[Callback]":
    """Construct the trackers that are asked for; what any of them lacks is a FairtrialError, before anything runs."""
    found: list[Callback] = []
    if tensorboard is not None:
        from fairtrial.trackers.tensorboard import TensorBoardTracker  # noqa: PLC0415  (few runs have trackers)

        found.append(TensorBoardTracker(tensorboard, say))
    if mlflow is not None:
        from fairtrial.trackers.mlflow import MLflowTracker  # noqa: PLC0415

        found.append(MLflowTracker(mlflow, say))
    if wandb is not None:
        from fairtrial.trackers.wandb import WandbTracker  # noqa: PLC0415

        found.append(WandbTracker(wandb or None, say))
    return found
