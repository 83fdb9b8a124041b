"""The command line: its commands, and the exit status of errors."""

import sys
from collections import Counter
from typing import Annotated, cast

import typer
from typer.core import TyperCommand

import fairtrial
from fairtrial.cli import check, gate, judge, machine, results, run, serve, stores, studies
from fairtrial.cli.output import complain, console, out
from fairtrial.errors import FairtrialError
from fairtrial.progress import shown_by
from fairtrial.report.live import ComputationBar

app = typer.Typer(
    help="Give every training setting a fair trial: run controlled comparisons of training settings.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; an error that a user can fix prints one line on standard error."""
    usage_error = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])  # typer does not export the class
    try:
        with ComputationBar(console()) as bar, shown_by(bar):
            sys.exit(app(standalone_mode=False))
    except FairtrialError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except usage_error as error:
        complain(f"{error.format_message()} (see fairtrial --help)")
        sys.exit(gate.ERROR if sys.argv[1:2] == ["gate"] else 2)  # 2 is a decision of the gate


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


class Command(TyperCommand):
    """A command that refuses an option given twice, unless it is repeatable: the first value would be ignored."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments."""
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(given).items():
            if times > 1 and not getattr(option, "multiple", True) and not getattr(option, "is_flag", False):
                raise typer.BadParameter(f"{option.opts[0]} is given {times} times: it takes one value")
        return super().parse_args(ctx, args)


for group in (run, serve, check, results, judge, gate, studies, stores, machine):
    for command in group.app.registered_commands:
        command.cls = Command
    app.add_typer(group.app)
