"""The command that serves the live page."""

import socket
from typing import Annotated

import typer

from fairtrial import signals
from fairtrial.cli.options import PortOption, StoreOption
from fairtrial.cli.output import say
from fairtrial.errors import Terminated
from fairtrial.store.url import DEFAULT_STORE
from fairtrial.store.watching import WatchedStore
from fairtrial.web.ports import HOST, PORT, address, is_open, listen
from fairtrial.web.server import Server


def serve(
    store: StoreOption = DEFAULT_STORE,
    *,
    port: PortOption = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Where to listen; by default only this machine can open the page."),
    ] = HOST,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further host name by which browsers may open the page; repeatable."),
    ] = None,
) -> None:
    """Show the store's studies in a browser, live.

    Progress, curves, verdicts, running trials, failures. It only reads; whoever can reach the address can see it.
    Ctrl-C ends it.
    """
    with WatchedStore(store):  # a store that is not there is a mistake now; later it may come and go
        pass
    with listen(host, PORT if port is None else port) as listening:
        names = [*(allow_host or []), *([socket.gethostname(), socket.getfqdn(), host] if is_open(listening) else [])]
        say(f"live page: {address(listening)}   (Ctrl-C ends it)")
        if is_open(listening):
            say("other machines can open it, too; there is no password")
        try:
            Server.of(store, *names, say=say).serve_on(listening)
        except (KeyboardInterrupt, Terminated) as end:
            raise typer.Exit(signals.exit_status(end)) from None
