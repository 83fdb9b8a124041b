"""The program: ``fairtrial``, or ``python -m fairtrial``."""

import sys

from fairtrial import signals
from fairtrial.errors import Terminated


def main() -> None:
    """Load and run the command line; a signal ends it with one line, also while it loads."""
    signals.answer()
    try:
        from fairtrial.cli.main import main as command_line  # noqa: PLC0415

        command_line()
    except (KeyboardInterrupt, Terminated) as end:
        print("fairtrial: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(signals.exit_status(end))


if __name__ == "__main__":
    main()
