"""The command that decides whether a change makes training worse."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairtrial import api, judging, signals
from fairtrial.cli import options
from fairtrial.cli.output import (
    GATE_ERROR,
    complain,
    console,
    out,
    out_document,
    say_how_to_resume,
    screen,
    show_traceback,
)
from fairtrial.errors import FairtrialError, Terminated
from fairtrial.report.live import ProgressDisplay
from fairtrial.spec import Study
from fairtrial.store.url import DEFAULT_STORE

if TYPE_CHECKING:
    from fairtrial.executors.base import Executor
    from fairtrial.stats.gate import Gate


#: Ends of names of tables of runs, which are no studies.
_TABLES = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".ndjson", ".csv.gz")


NotWorseThanOption = Annotated[
    float | None,
    typer.Option(
        "--not-worse-than", metavar="MARGIN", help="A change that costs this or more, in the measure's unit, fails."
    ),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Compare the reference under the code as it is now with these stored runs."),
]
SaveOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Train the reference, and save its runs as a baseline.")
]
SeedsOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Seeds of a baseline; by default the study's.")
]
MaxSeedsOption = Annotated[
    int | None, typer.Option(metavar="N", min=2, help="Seeds after which it ends; by default the study's.")
]
AlphaOption = Annotated[
    float | None,
    typer.Option(metavar="ALPHA", help="Probability of each wrong decision; by default the study's, 0.05."),
]
ChangesOption = Annotated[
    int,
    typer.Option("--changes-a-month", metavar="N", min=1, help="Changes that it judges a month, for its error rates."),
]
MarkdownOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write a summary for a pull request; - for standard output.")
]
JUnitOption = Annotated[str | None, typer.Option(metavar="FILE", help="Write JUnit XML; - for standard output.")]


def gate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A study, as for run; or runs as for judge, with the options from --arm to --unit.",
        ),
    ],
    overrides: options.OverridesOption = None,
    store: options.StoreOption = DEFAULT_STORE,
    *,
    not_worse_than: NotWorseThanOption = None,
    baseline: BaselineOption = None,
    save: SaveOption = None,
    seeds: SeedsOption = None,
    max_seeds: MaxSeedsOption = None,
    max_time: options.MaxTimeOption = None,
    alpha: AlphaOption = None,
    changes: ChangesOption = 20,
    markdown: MarkdownOption = None,
    junit: JUnitOption = None,
    arm: options.ArmOption = None,
    seed: options.SeedOption = None,
    measure: options.MeasureOption = None,
    reference: options.ReferenceOption = None,
    epoch: options.EpochOption = None,
    group: options.GroupOption = None,
    wide: options.WideOption = None,
    direction: options.DirectionOption = None,
    unit: options.UnitOption = None,
    workers: options.WorkersOption = None,
    threads: options.ThreadsOption = None,
    time_limit: options.TimeLimitOption = None,
    memory_limit: options.MemoryLimitOption = None,
    executor: options.ExecutorOption = "auto",
    trials_per_gpu: options.TrialsPerGpuOption = None,
    device: options.DeviceOption = None,  # noqa: ARG001  (its callback has chosen it)
    address: options.AddressOption = None,
    checkpoints: options.CheckpointsOption = None,
) -> None:
    """Decide whether a change makes training worse: exit status 0 (not worse), 1 (worse), 2 (undecided) or 3 (error).

    Trains seeds one after the other, and stops as soon as it is decided.
    """
    columns = {
        "arm": arm, "seed": seed, "measure": measure, "reference": reference, "epoch": epoch, "group": group,
        "wide": wide, "direction": direction, "unit": unit,
    }  # fmt: skip
    table = {name: value for name, value in columns.items() if value is not None}
    plan = {"baseline": baseline, "max-seeds": max_seeds, "max-time": max_time}
    outputs = {"markdown": markdown, "junit": junit}
    with _statuses(store):
        _check_source(source, table, {**plan, "save": save, "seeds": seeds, "set": overrides})
        _check_mode(save, {"seeds": seeds}, {**plan, **outputs, "not-worse-than": not_worse_than, "alpha": alpha})
        _check_outputs(markdown, junit)
        if table:
            found = _gate_table(source, table, not_worse_than=_checked(not_worse_than), alpha=alpha, changes=changes)
        else:
            run = options.make_executor(
                executor, workers=workers, threads=threads, address=address, checkpoints=checkpoints,
                trials_per_gpu=trials_per_gpu, time_limit=time_limit, memory_limit=memory_limit,
            )  # fmt: skip
            study = api.load(source, overrides or [], store=store)
            with _training(store, run) as where:
                if save is not None:
                    _save(study, save, seeds, where)
                    return
                found = _gate_study(
                    study, not_worse_than=_checked(not_worse_than), baseline=baseline, alpha=alpha, max_seeds=max_seeds,
                    max_seconds=max_time, changes_a_month=changes, **where,
                )  # fmt: skip
        _write(found, markdown, junit)
    raise typer.Exit(found.exit_code)


@contextmanager
def _statuses(store: str) -> Iterator[None]:
    """End with a status of its own, whatever happens: 1 says that the change is worse, so no error may end with it."""
    try:
        yield
    except FairtrialError as error:
        complain(str(error))
        raise typer.Exit(GATE_ERROR) from None
    except (KeyboardInterrupt, Terminated) as end:
        say_how_to_resume(store)
        raise typer.Exit(signals.exit_status(end)) from None
    except Exception as error:  # noqa: BLE001  (a traceback alone would end with status 1)
        show_traceback(type(error), error, error.__traceback__)
        raise typer.Exit(GATE_ERROR) from None


@contextmanager
def _training(store: str, executor: "Executor") -> Iterator[dict[str, Any]]:
    """Show progress; gives what a run needs beside its study."""
    os.environ.pop("FAIRTRIAL_STORE", None)  # workers inherit the environment, and it may hold a password
    with ProgressDisplay(console()) as display:
        yield {"store": store, "executor": executor, "callbacks": [display]}


def _gate_table(source: str, table: Mapping[str, Any], *, changes: int, **options: Any) -> "Gate":
    from fairtrial.gate import gate_runs  # noqa: PLC0415  (loads SciPy)

    needed = ("wide" if "wide" in table else "arm", "measure", "reference")
    missing = [f"--{name}" for name in needed if name not in table]
    if missing:
        raise FairtrialError(f"{source}: a table of runs needs {' and '.join(missing)}")
    return gate_runs(judging.import_runs(source, **table), changes_a_month=changes, **options)


def _gate_study(study: Study, **options: Any) -> "Gate":
    from fairtrial.gate import gate as run_gate  # noqa: PLC0415  (loads SciPy)

    return run_gate(study, **options)


def _save(study: Study, path: Path, seeds: int | None, where: Mapping[str, Any]) -> None:
    from fairtrial.gate import save_baseline  # noqa: PLC0415  (loads SciPy)

    if not path.resolve().parent.is_dir():  # before anything is trained
        raise FairtrialError(f"--save {path}: there is no folder {path.parent}")
    saved = save_baseline(study, path, seeds=seeds, **where)
    out(f"{path}: {len(saved.results)} seeds of {saved.head.arm}, digest {saved.head.digest[:12]}")


def _checked(margin: float | None) -> float:
    if margin is None:
        raise FairtrialError("--not-worse-than: is missing; give the margin, such as --not-worse-than 0.005")
    if not (math.isfinite(margin) and margin > 0):
        raise FairtrialError(f"--not-worse-than {margin}: must be a positive number, in the measure's unit")
    return margin


def _check_source(source: str, table: Mapping[str, Any], of_studies: Mapping[str, Any]) -> None:
    """Refuse options of studies with a table of runs, and a table without its columns."""
    if not table and source.lower().endswith(_TABLES):
        raise FairtrialError(
            f"{source}: a table of runs needs --arm, --measure and --reference; and --seed if it has one"
        )
    if table and source.lower().endswith(".toml"):
        raise FairtrialError(f"--{next(iter(table))}: is for a table of runs, and {source} is a study")
    if table and (given := [name for name, value in of_studies.items() if value]):
        raise FairtrialError(f"--{given[0]}: is for a study, and --{next(iter(table))} for a table of runs")


def _check_mode(save: Path | None, saving: Mapping[str, Any], gating: Mapping[str, Any]) -> None:
    """Refuse options of the gate with --save, and of --save without it."""
    unused = saving if save is None else gating
    if given := [name for name, value in unused.items() if value is not None]:
        needs = (
            "is for --save; --max-seeds limits a gate" if save is None else "is not for --save, which decides nothing"
        )
        raise FairtrialError(f"--{given[0]}: {needs}")


def _check_outputs(*paths: str | None) -> None:
    """Refuse a summary that could not be written, before anything is trained."""
    files = [Path(path) for path in paths if path not in {None, "-"}]
    if paths.count("-") > 1:
        raise FairtrialError("--markdown - --junit -: only one of them can go to standard output")
    for file in files:
        if not file.resolve().parent.is_dir():
            raise FairtrialError(f"{file}: there is no folder {file.parent}")


def _write(found: "Gate", markdown: str | None, junit: str | None) -> None:
    """Write the summaries; without one on standard output, print the text there."""
    from fairtrial.report import gate as report  # noqa: PLC0415  (loads SciPy)
    from fairtrial.report.files import write_document  # noqa: PLC0415

    written = {markdown: report.gate_markdown(found).encode(), junit: report.junit(found)}
    for path, content in written.items():
        if path == "-":
            out_document(content)
        elif path is not None:
            write_document(Path(path), content)
    if "-" not in {markdown, junit}:
        print(report.gate_text(found, **screen()), end="")  # noqa: T201  (colors are escape codes)
