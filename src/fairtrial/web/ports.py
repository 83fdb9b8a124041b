"""Takes the port of the live page, and says where the page is. Loads nothing, for a run does it, too."""

import errno
import socket
from ipaddress import ip_address

from fairtrial.errors import FairtrialError

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
