"""The command line: its commands, and the exit status of errors. A command's module is imported when it is called."""

import importlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from time import perf_counter
from typing import Annotated, Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

import fairtrial
from fairtrial.cli.output import GATE_ERROR, complain, console, out
from fairtrial.errors import FairtrialError
from fairtrial.progress import shown_by


class Entry(NamedTuple):
    """A command: its name, the module of `fairtrial.cli` and the function there, the first line of its docstring."""

    name: str
    module: str
    function: str
    help: str


#: All commands, in the order of the help; tests compare the last column with the docstrings.
COMMANDS = (
    Entry("run", "run", "run", "Train the missing trials of a study, or of each of its tasks, and print the results."),
    Entry("plan", "run", "plan_study", "Estimate what a study will cost on this machine."),
    Entry("serve", "serve", "serve", "Show the store's studies in a browser, live."),
    Entry("check", "check", "check_study", "Check a study's training loop before its trials cost anything."),
    Entry("table", "results", "table", "Print the results: mean and spread for each arm."),
    Entry("verdict", "results", "verdict", "Compare each arm with the reference."),
    Entry("claims", "results", "claims", "Test the study's claims."),
    Entry(
        "failures",
        "results",
        "failures",
        "Print the tracebacks of failed trials, and how all other runs without a comparable number were lost.",
    ),
    Entry("plot", "results", "plot", "Draw charts of a study as PNG, SVG and PDF."),
    Entry(
        "report",
        "report",
        "report",
        "Write a report of a study: a page that needs no network, with its figures, tables and data as files.",
    ),
    Entry("export", "results", "export", "Write every epoch record, every trial, or every snapshot."),
    Entry(
        "xray",
        "results",
        "xray",
        "Show what each arm's optimizer did: how much epsilon and the betas mattered, in words and tables.",
    ),
    Entry("digest", "results", "digest_study", "Print a digest of the results."),
    Entry("judge", "judge", "judge", "Judge runs that were made elsewhere: is a difference real, or luck?"),
    Entry(
        "import",
        "judge",
        "import_",
        "Add runs that were made elsewhere to a store: as a study, or as trials of a study of your own (--study).",
    ),
    Entry(
        "gate",
        "gate",
        "gate",
        "Decide whether a change makes training worse: exit status 0 (not worse), 1 (worse), 2 (undecided) or 3 "
        "(error).",
    ),
    Entry("show", "studies", "show", "Print a study as TOML, with every default written out."),
    Entry("explain", "studies", "explain", "Explain what the numbers of each arm's optimizer mean."),
    Entry("ls", "studies", "list_studies", "List the studies in the store and how far each one is."),
    Entry("new", "studies", "new", "Write a study and its training loop to start from; nothing is overwritten."),
    Entry("merge", "stores", "merge", "Add the studies and trials of other stores to the store."),
    Entry("rm", "stores", "remove", "Remove a study from the store."),
    Entry(
        "gc",
        "stores",
        "gc",
        "Remove what no study needs: stray trials, old checkpoints, dead locks, unused space.",
    ),
    Entry("bench", "machine", "bench", "Time training steps on this machine."),
    Entry("doctor", "machine", "check_installation", "Check the installation."),
    Entry("data", "machine", "data", "Download a data set, verify it and print where it is."),
)


class Command(TyperCommand):
    """A command that refuses an option given twice, unless it is repeatable: the first value would be ignored.

    An option whose name for its value is in brackets, such as ``--wandb [PROJECT]``, may have none.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments."""
        optional = {option.opts[0] for option in self.params if str(option.metavar).startswith("[")}
        following = [*args, "-"][1:]
        args = [
            f"{arg}=" if arg in optional and after.startswith("-") else arg
            for arg, after in zip(args, following, strict=True)
        ]
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(given).items():
            if times > 1 and not getattr(option, "multiple", True) and not getattr(option, "is_flag", False):
                raise typer.BadParameter(f"{option.opts[0]} is given {times} times: it takes one value")
        return super().parse_args(ctx, args)


class Commands(Mapping[str, TyperCommand]):
    """The commands by name, each imported when it is looked up."""

    def __init__(self, entries: tuple[Entry, ...] = COMMANDS) -> None:
        self._entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> TyperCommand:
        return _load(self._entries[name])

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def short_help(self, name: str, width: int) -> str:
        """The line about a command in the help of all, shortened to a width; nothing is imported for it."""
        return TyperCommand(name, help=self._entries[name].help).get_short_help_str(width)


@cache
def _load(entry: Entry) -> TyperCommand:
    one = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    function = getattr(importlib.import_module(f"fairtrial.cli.{entry.module}"), entry.function)
    one.command(entry.name, cls=Command)(function)
    return cast("TyperCommand", typer.main.get_command(one))


class Group(TyperGroup):
    """The group of all commands, which are imported one by one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Commands()

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """The names, in the order of the table."""
        return list(self.commands)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ARG002
        """Write the commands' names and lines as Typer does, which would import all of them."""
        width = formatter.width - 6 - max(map(len, self.commands))
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands.short_help(name, width)) for name in self.commands])


app = typer.Typer(
    cls=Group,
    help="Give every training setting a fair trial: run controlled comparisons of training settings.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def no_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Print the version, or help if there is no command."""
    if version:
        out(f"fairtrial {fairtrial.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        out(context.get_help())


def main() -> None:
    """Run the command line; an error that a user can fix prints one line on standard error."""
    usage_error = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])  # typer does not export the class
    try:
        with _Computations() as computations, shown_by(computations):
            sys.exit(app(standalone_mode=False))
    except FairtrialError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except usage_error as error:
        complain(f"{error.format_message()} (see fairtrial --help)")
        sys.exit(GATE_ERROR if sys.argv[1:2] == ["gate"] else 2)  # 2 is a decision of the gate


class _Computations:
    """Shows long computations by a bar, for which Rich is loaded once one keeps the command waiting."""

    #: Seconds of a command before it is said what it computes.
    PATIENCE = 2.0

    def __init__(self) -> None:
        self._since = perf_counter()
        self._bar: Any = None

    def __enter__(self) -> "_Computations":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exc_info)

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show progress."""
        if self._bar is None and perf_counter() - self._since > self.PATIENCE:
            from fairtrial.report.live import ComputationBar  # noqa: PLC0415  (loads Rich)

            self._bar = ComputationBar(console(), patience=0.0)
        if self._bar is not None:
            self._bar(done, total, what)
