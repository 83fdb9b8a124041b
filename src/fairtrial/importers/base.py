"""The contract of importers: a `Source` of records in long form, and `open_source`, which finds who can read what.

Each format is a module of this package, which registers an `Importer` where it is defined:

    IMPORTERS.register("csv")(Importer("a CSV file", accepts, open_csv))

A module must import without its library, and import it in its functions: its `accepts` is asked of every source.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fairtrial.errors import RunsError
from fairtrial.registry import IMPORTERS, did_you_mean
from fairtrial.spec.messages import show

if TYPE_CHECKING:
    import pyarrow as pa

#: What a user gives: a path, a URL or another text that some format knows, or a data frame.
Given: TypeAlias = Any


@dataclass(frozen=True)
class Source:
    """Runs in long form: a row for each record, columns by name.

    Attributes:
        name: what messages and verdicts call it, such as ``"runs.csv"``; may be any text.
        columns: all that can be asked for.
        read: streams the named columns, in the order of the rows, anew at each call. Cells are of any Arrow type; text
            is converted where a number is due. Raises `RunsError` if the source can't be read.
        run: the column that tells runs apart, where the format knows it.
        epoch: the column that counts epochs or steps within a run.
        status: the column with how a run ended, where that is known: ``"finished"``, ``"failed"`` (also crashed and
            killed) or ``"running"``.
        settings: the columns with the settings of runs, where the format knows them; None if any column may be one.
        notes: what this format does not know, a sentence each.
        first_row: what messages call the first row: 2 in a file whose line 1 has the columns' names.
        given: what a user wrote to name it, for commands that messages propose.
    """

    name: str
    columns: tuple[str, ...]
    read: "Callable[[Sequence[str]], Iterator[pa.RecordBatch]]"
    run: str | None = None
    epoch: str | None = None
    status: str | None = None
    settings: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    first_row: int = 1
    given: str = ""

    def check_columns(self, columns: Sequence[str], option: str = "") -> None:
        """Raise a `RunsError` for a column that there is not, with the nearest and those that there are."""
        for column in columns:
            if column not in self.columns:
                where = f"{option} {show(column)}" if option else show(column)
                raise RunsError(f"{where}: {show(self.name)[1:-1]} has no such column; {_suggest(column, self)}")


@dataclass(frozen=True)
class Importer:
    """One format.

    Attributes:
        about: what it reads, in a few words, for messages: ``"a CSV file"``.
        accepts: tells cheaply, and without raising, whether a source is of this format.
        open: opens such a source; raises `RunsError`.
        general: whether others are asked first, because they may know more about such a file.
    """

    about: str
    accepts: Callable[[Given], bool]
    open: Callable[[Given], Source]
    general: bool = False


def open_source(given: Given) -> Source:
    r"""Open runs from elsewhere.

    Args:
        given: a path, a data frame, or what another importer knows, such as a URL. ``NAME:REST`` asks the importer of
            that name for the rest, whatever it looks like.

    Raises:
        RunsError: there is no such file, or no importer can read it.

    Example:
        >>> _ = Path("runs.csv").write_text("optimizer,seed,test_acc\nadam,0,0.81\n")
        >>> open_source("runs.csv").columns
        ('optimizer', 'seed', 'test_acc')
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, str):
        name, _, rest = given.partition(":")
        if rest and name in IMPORTERS.names():
            return opened(IMPORTERS.get(name), rest)
    importers: list[Importer] = [IMPORTERS.get(name) for name in IMPORTERS.names()]
    for importer in sorted(importers, key=lambda one: one.general):
        if importer.accepts(given):
            return opened(importer, given)
    raise RunsError(f"{_shown(given)}: {_why_not(given)}; it must be {_listed([one.about for one in importers])}")


def opened(importer: Importer, given: Given) -> Source:
    """Open a source by one importer; a file that can't be read is one line."""
    try:
        return replace(importer.open(given), given=str(given) if isinstance(given, str | Path) else "")
    except OSError as error:
        raise RunsError(f"{_shown(given)}: {error.strerror or error}") from error


def path_of(given: Given) -> Path | None:
    """The path that is given, if it may be one; a URL is none."""
    if isinstance(given, str | Path) and "\0" not in str(given) and "://" not in str(given):
        return Path(given)
    return None


def _why_not(given: Given) -> str:
    if (path := path_of(given)) is None:
        return "can't be read"
    try:
        return "can't be read" if path.exists() else "no such file or folder"
    except OSError as error:
        return error.strerror or "can't be read"


def _suggest(column: str, source: Source) -> str:
    hint = did_you_mean(show(column)[1:-1], [show(one)[1:-1] for one in source.columns])
    if not hint.endswith("?"):
        return hint.replace("known: ", "its columns: ", 1)
    return (
        f"{hint} Its columns: {did_you_mean('', [show(one)[1:-1] for one in source.columns]).removeprefix('known: ')}"
    )


def _shown(given: Given) -> str:
    return show(str(given))[1:-1] if isinstance(given, str | Path) else type(given).__name__


def _listed(items: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(items[:-1]), items[-1])))
