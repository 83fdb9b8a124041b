"""Serves the live page, and ends at once when it is asked to, even while pages are open."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from fairtrial.web.app import LivePage, live_page
from fairtrial.web.security import say_on_stderr


class Server(uvicorn.Server):
    """Serves the live page of a store on a port that `ports.listen` took.

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
