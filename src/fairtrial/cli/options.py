"""Arguments and options that commands share, and the formats that they write."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from fairtrial.executors.limits import parse_bytes, parse_seconds

#: Where records go unless the user says otherwise.
DEFAULT_STORE = "fairtrial.db"


class TableFormat(StrEnum):
    """Formats of `fairtrial table`."""

    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"
    JSON = "json"


class EvidenceFormat(StrEnum):
    """Formats of `fairtrial verdict` and `fairtrial claims`."""

    TEXT = "text"
    MARKDOWN = "markdown"
    LATEX = "latex"
    JSON = "json"


class ExportFormat(StrEnum):
    """Formats of `fairtrial export`."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


class ExecutorName(StrEnum):
    """Where `fairtrial run` has trials run."""

    LOCAL = "local"
    RAY = "ray"


StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A TOML file, a study that ships with fairtrial, or NAME or NAME@HASH of one in the store.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the study, such as training.epochs=3."),
]
StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", envvar="FAIRTRIAL_STORE", help="The database: a file or a URL.")
]

WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Trials to run side by side; by default one a GPU, or as many as there are cores for."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of each worker, by default 1. It can change the last digits of a result."),
]


def _readable(read: Callable[[str], object]) -> Callable[[str | None], str | None]:
    """Refuse what can't be read, and leave the rest as it was written, to be shown again."""

    def check(text: str | None) -> str | None:
        try:
            if text is not None:
                read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        return text

    return check


TimeLimitOption = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        callback=_readable(parse_seconds),
        help="End a trial that takes longer, as failed: 90s, 30m, 2h.",
    ),
]
MemoryLimitOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        callback=_readable(parse_bytes),
        help="End a trial whose worker asks for more memory, as failed: 2GiB, 800MB.",
    ),
]
ExecutorOption = Annotated[
    ExecutorName, typer.Option("--executor", help="Worker processes on this machine, or tasks of a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="ADDRESS", help="The Ray cluster: auto or HOST:PORT; by default Ray is started here."
    ),
]
CheckpointsOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoints",
        metavar="PLACE",
        help="Where running trials keep their state: a folder or a URL, one that all nodes see; else beside the store.",
    ),
]
