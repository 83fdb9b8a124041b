"""Serves the live page: takes a port, follows the store, and ends at once when it is asked to, whoever is connected."""

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address

import uvicorn

from fairtrial.errors import FairtrialError
from fairtrial.web.app import LivePage, live_page
from fairtrial.web.security import say_on_stderr

#: Where the page is served unless told otherwise.
HOST, PORT = "127.0.0.1", 8484


def listen(host: str = HOST, port: int = PORT) -> socket.socket:
    """Take a port; 0 is any that is free.

    Raises:
        FairtrialError: another program has it, or there is no such address on this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        raise FairtrialError(_why_not(error, host, port)) from error


def _why_not(error: OSError | UnicodeError, host: str, port: int) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return f"--port {port}: another program listens there; name another, or 0 for any that is free"
    if number == errno.EACCES:
        return f"--port {port}: needs rights that this user lacks; name one from 1024 to 65535"
    if number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror | UnicodeError):
        return f"--host {host}: not an address of this machine; write 127.0.0.1 for this machine alone, 0.0.0.0 for all"
    return f"the live page can't listen on {host}, port {port}: {error}"


def address(listening: socket.socket) -> str:
    """The URL to open: ``http://localhost:8484/``."""
    host, port = listening.getsockname()[:2]
    if ip_address(host).is_loopback:
        host = "localhost"
    elif ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_open(listening: socket.socket) -> bool:
    """Whether other machines can reach a port."""
    return not ip_address(listening.getsockname()[0]).is_loopback


class Server(uvicorn.Server):
    """Serves the live page of a store on a port that `listen` took.

    Args:
        page: what `live_page` made.

    Example:
        >>> Server.of("fairtrial.db").serve_on(listen(port=0))  # doctest: +SKIP
    """

    def __init__(self, page: LivePage) -> None:
        super().__init__(
            uvicorn.Config(
                page.app,
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._page = page

    @classmethod
    def of(cls, store: str, *names: str, say: Callable[[str], object] = say_on_stderr) -> "Server":
        """Make a server of a store's page, which answers to further host names."""
        return cls(live_page(store, names, say))

    def serve_on(self, listening: socket.socket) -> None:
        """Serve until a signal, or ``should_exit``, ends it; then raise what the signal means to this process."""
        asyncio.run(self.serve(sockets=[listening]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which would last for ever, and then the server."""
        self._page.hub.close()
        await super().shutdown(sockets)
