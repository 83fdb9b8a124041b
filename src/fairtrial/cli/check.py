"""The command that checks a study's training loop."""

import os
from typing import Annotated

import typer

from fairtrial import api, signals
from fairtrial.cli import options
from fairtrial.cli.output import console, out, say
from fairtrial.errors import Terminated
from fairtrial.store.url import DEFAULT_STORE


def check_study(
    study: options.StudyArgument,
    overrides: options.OverridesOption = None,
    store: options.StoreOption = DEFAULT_STORE,
    *,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Epochs of each arm to train, at most.")] = 3,
    threads: options.ThreadsOption = None,
    time_limit: options.TimeLimitOption = None,
    memory_limit: options.MemoryLimitOption = None,
    as_json: options.JSONOption = False,
) -> None:
    """Check a study's training loop before its trials cost anything.

    Trains a few epochs of each arm, several times, and records nothing. Ends with status 1 if something is wrong.
    """
    from fairtrial.checking.running import check  # noqa: PLC0415  (loads SciPy)

    limits = {} if time_limit is None else {"time_limit": time_limit}
    loaded = api.load(study, overrides or [], store=store)
    os.environ.pop("FAIRTRIAL_STORE", None)  # workers inherit the environment, and it may hold a password
    try:
        found = check(loaded, epochs=epochs, threads=threads, memory_limit=memory_limit, **limits)
    except (KeyboardInterrupt, Terminated) as end:
        say("interrupted; nothing was recorded")
        raise typer.Exit(signals.exit_status(end)) from None
    out(found.json() if as_json else found.text(console().width))
    if not found.sound:
        raise typer.Exit(1)
