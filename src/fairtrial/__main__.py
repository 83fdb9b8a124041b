"""The program: ``fairtrial``, or ``python -m fairtrial``."""

import gc
import os
import sys

try:
    _folder = os.getcwd()  # noqa: PTH109  (pathlib imports modules from there)
except FileNotFoundError:
    sys.exit("fairtrial: the working folder has been deleted; change to one that exists")
if __name__ == "__main__" and sys.path[0] == _folder:
    # `python -m` puts the working folder first, where any file can pass for a module: a `torch.py` of a study's folder
    # would run in a study of built-in parts. What a study names is found there nevertheless, last; see `registry`.
    del sys.path[0]

from fairtrial import signals, streams
from fairtrial.errors import Terminated


def main() -> None:
    """Load and run the command line; a signal ends it with one line, also while it loads."""
    gc.set_threshold(100_000, 20)  # what is loaded stays: looking for garbage among it took a sixth of `verdict`'s time
    streams.install()
    signals.install_handlers()
    try:
        from fairtrial.cli.main import main as command_line  # noqa: PLC0415
        from fairtrial.cli.output import show_traceback  # noqa: PLC0415

        sys.excepthook = show_traceback
        command_line()
    except SystemExit as end:
        sys.exit(streams.exit_status(end.code))
    except (KeyboardInterrupt, Terminated) as end:
        print("fairtrial: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(signals.exit_status(end))


if __name__ == "__main__":
    main()
