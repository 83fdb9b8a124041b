"""The program itself: ``fairtrial``, or ``python -m fairtrial``."""

import sys


def main() -> None:
    """Load the command line and run it; Ctrl-C is no error, not even while it loads."""
    try:
        from fairtrial.cli import main as command_line  # noqa: PLC0415

        command_line()
    except KeyboardInterrupt:
        print("fairtrial: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)


if __name__ == "__main__":
    main()
