"""What is asked of a source: which columns are arm, seed, measure, epoch and repeated measurement."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fairtrial.errors import RunsError
from fairtrial.importers.base import Source
from fairtrial.spec.messages import brief, show

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns of a table with a column for each arm, once it is in long form; no column of a user's has a NUL.
ARM, SEED, ROW = "arm\0", "seed\0", "row\0"

#: Stands for a column of repeated measurements where each row is one, and none says which.
EACH_ROW = "rows"

#: Names that columns of these kinds often have, the most frequent first.
_USUAL = {
    "--arm": (
        "optimizer",
        "arm",
        "method",
        "algorithm",
        "algo",
        "model",
        "config",
        "variant",
        "setting",
        "name",
        "group",
    ),
    "--seed": ("seed", "random_state", "random_seed", "rng_seed", "run_id", "run"),
    "--epoch": ("epoch", "step", "global_step", "_step", "iteration", "iter", "timesteps", "timestep"),
    "--group": ("episode", "fold", "eval_episode", "env", "task", "split", "batch"),
}
_FAMILY = re.compile(r"(?P<family>best|final|mean_last_?(?P<last>[1-9]\d{0,5}))_(?P<column>.+)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """What is asked of a source, checked against its columns.

    Attributes:
        source: the runs, in long form.
        arm: columns whose combinations are the arms.
        seed: the column with the seeds; None if they are not known.
        column: what is measured.
        family: of a measure over epochs: ``"best"``, ``"final"`` or ``"mean_last3"``; empty for a column with one value
            a run.
        last: how many of the last epochs count; 0 for the best one.
        epoch: the column that counts epochs.
        group: the column that tells repeated measurements of a run apart; `EACH_ROW` if each row is one.
        run: the column that tells runs apart, where the format knows it and seeds are not known.
        lowest: whether the lowest value is the best.
        by_row: whether each row of a table with a column for each arm is a seed, because none is named.
    """

    source: Source
    arm: tuple[str, ...]
    seed: str | None
    column: str
    family: str
    last: int
    epoch: str | None
    group: str | None
    run: str | None
    lowest: bool = False
    by_row: bool = False

    @classmethod
    def of(
        cls,
        source: Source,
        *,
        arm: str | Sequence[str] | None = None,
        seed: str | None = None,
        measure: str | None = None,
        epoch: str | None = None,
        group: str | None = None,
        wide: str | Sequence[str] | None = None,
    ) -> Self:
        """Check what a user asks; several columns of arms, or with an arm in each, are separated by commas.

        Raises:
            RunsError: something is missing, or there is no such column.
        """
        if wide is not None:
            if arm is not None or epoch is not None or group is not None:
                raise RunsError(
                    "--wide: each named column is an arm, and each row a seed; leave --arm, --epoch and --group out"
                )
            return cls._of_wide(source, _names(source, wide), seed, measure)
        if arm is None or measure is None:
            raise _missing(source, arm, measure)
        arms = _names(source, arm)
        epoch = epoch or source.epoch
        family, last, column = _measure(source, measure, epoch)
        named = {"--arm": arms, "--seed": seed, "--measure": column, "--epoch": epoch}
        named |= {"--group": group} if group != EACH_ROW or group in source.columns else {}
        _check(source, named)
        run = source.run if seed is None else None
        if group is not None and seed is None and run is None:
            raise RunsError(
                f"--group {show(group)}: needs the seeds too, to tell runs apart; write {_usual(source, '--seed')}"
            )
        return cls(source, arms, seed, column, family, last, epoch if family else None, group, run)

    @classmethod
    def _of_wide(cls, source: Source, wide: tuple[str, ...], seed: str | None, measure: str | None) -> Self:
        if measure is None:
            raise RunsError("--measure: is missing; with --wide it is what the columns contain, such as test_acc")
        _check(source, {"--wide": wide, "--seed": seed})
        long = _long(source, wide, seed, measure)
        return cls(long, (ARM,), SEED, measure, "", 1, None, None, None, by_row=seed is None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read for it."""
        group = self.group if self.group in self.source.columns else None
        own = [*self.arm, self.seed, self.column, self.epoch, group, self.run, self.source.status]
        own += [ROW] if ROW in self.source.columns else []
        return tuple(dict.fromkeys(column for column in own if column is not None))

    @property
    def others(self) -> tuple[str, ...]:
        """The columns that may be further settings of runs."""
        known = self.source.columns if self.source.settings is None else self.source.settings
        return tuple(column for column in known if column not in self.columns and not column.startswith("_"))

    @property
    def measurements(self) -> str | None:
        """The column whose name says that it tells repeated measurements of a run apart, such as episodes."""
        named = self.seed if self.seed in self.source.columns else None
        asked = {*self.arm, self.column}
        found = [column for column in (*self.others, *([named] if named else [])) if column not in asked]
        return next(
            (column for column in found if re.fullmatch(r"(.*[_./])?(eval_)?episode(_id)?", column.lower())), None
        )

    def usual(self, option: str) -> str:
        """Say with what columns an option could be written."""
        return _usual(self.source, option)


def _names(source: Source, given: str | Sequence[str]) -> tuple[str, ...]:
    """Split a list of columns; a column whose own name has a comma is one."""
    if isinstance(given, str):
        given = [given] if given in source.columns else [name.strip() for name in given.split(",")]
    return tuple(dict.fromkeys(given))


def _check(source: Source, named: "dict[str, str | tuple[str, ...] | None]") -> None:
    """Check that all columns are there, and that none is asked for twice."""
    used: dict[str, str] = {}
    for option, columns in named.items():
        for column in (columns,) if isinstance(columns, str) else columns or ():
            source.check_columns([column], option)
            if (other := used.setdefault(column, option)) != option:
                raise RunsError(f"{option} {show(column)}: is {other} too; a column is one of the two")


def _measure(source: Source, measure: str, epoch: str | None) -> tuple[str, int, str]:
    """Split a measure into family, number of last epochs, and column; a column alone has no family."""
    found = _FAMILY.fullmatch(measure)
    if measure in source.columns and epoch is None:
        return "", 1, measure
    if found and found["column"] in source.columns:
        if epoch is None:
            raise RunsError(
                f"--measure {show(measure)}: needs the column that counts epochs or steps; write "
                f"{_usual(source, '--epoch')}"
            )
        family = found["family"].replace("last_", "last")
        last = int(found["last"]) if found["last"] else int(family == "final")
        return family, last, found["column"]
    if measure in source.columns:
        raise RunsError(
            f"--measure {show(measure)}: a run has one value in each {_safe(epoch)}; write final_{_safe(measure)}, "
            f"best_{_safe(measure)} or mean_last3_{_safe(measure)}"
        )
    source.check_columns([found["column"] if found else measure], "--measure")
    raise AssertionError("the column is there")


def _usual(source: Source, option: str) -> str:
    """Propose an option with a column whose name suggests it, or list the columns."""
    if (found := _guess(source, _USUAL[option])) is not None:
        return f"{option} {_quoted(found)}"
    return f"--group {EACH_ROW}" if option == "--group" else f"{option} and one of {_listed(source)}"


def _missing(source: Source, arm: object, measure: str | None) -> RunsError:
    """Say what is missing, and propose a whole command."""
    lacking = " and ".join([*(["--arm"] if arm is None else []), *(["--measure"] if measure is None else [])])
    seed, epoch = _guess(source, _USUAL["--seed"]), source.epoch or _guess(source, _USUAL["--epoch"])
    measured = _likely_measure(source)
    own = arm if isinstance(arm, str) else _guess(source, _USUAL["--arm"])
    others = [column for column in source.columns if column not in {seed, epoch, measured}]
    words = [f"--arm {_quoted(own or (others or ['COLUMN'])[0])}"]
    words += [f"--seed {_quoted(seed)}"] if seed else []
    words += [f"--epoch {_quoted(epoch)}"] if epoch and not source.epoch else []
    words += [f"--measure {_quoted(measure or (f'final_{measured}' if epoch else measured))}", "--reference ARM"]
    command = f"fairtrial judge {_quoted(source.given or source.name)} {' '.join(words)}"
    return RunsError(f"{lacking}: missing; {show(source.name)[1:-1]} has {_listed(source)}; for example: {command}")


def _guess(source: Source, names: Sequence[str]) -> str | None:
    """The column whose name, or the end of it, is the first of some names that there is."""
    found = {column.lower().rpartition(".")[2].rpartition("/")[2]: column for column in reversed(source.columns)}
    return next((found[name] for name in names if name in found), None)


def _likely_measure(source: Source) -> str:
    words = ("acc", "accuracy", "f1", "auc", "score", "reward", "return", "loss", "error")
    ranked = [column for word in words for column in source.columns if column.lower().endswith(word)]
    held_out = [column for column in ranked if re.search("test|val|eval", column.lower())]
    return (held_out or ranked or ["COLUMN"])[0]


def _quoted(text: str) -> str:
    return shlex.quote(brief(text))


def _safe(text: str | None) -> str:
    return show(text or "")[1:-1]


def _listed(source: Source) -> str:
    columns = [_safe(column) for column in source.columns[:30]]
    more = f" and {len(source.columns) - 30:,} more" if len(source.columns) > 30 else ""
    return ", ".join(columns) + more


def _long(source: Source, wide: Sequence[str], seed: str | None, measure: str) -> Source:
    """Turn a table with a column for each arm into one with a row for each run; without seeds, a row is one."""

    def read(columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa  # noqa: PLC0415

        done = source.first_row
        for batch in source.read([*wide, *([seed] if seed else [])]):
            number = batch.num_rows
            rows = pa.array(range(done, done + number), pa.int64())
            done += number
            for name in wide:
                own = {ARM: pa.array([name] * number, pa.string()), ROW: rows, measure: batch.column(name)}
                own[SEED] = batch.column(seed) if seed else rows
                yield pa.RecordBatch.from_arrays([own[column] for column in columns], list(columns))

    return Source(source.name, (ARM, SEED, ROW, measure), read, notes=source.notes, first_row=source.first_row)
