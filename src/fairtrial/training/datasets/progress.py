"""How downloads tell a caller how far they are."""

from collections.abc import Callable
from typing import TypeAlias

#: Called often, as ``progress(done_bytes, total_bytes, what)``: the first rises from 0, the second is None where nobody
#: knows it, and a new ``what``, such as ``"cifar-10-python.tar.gz"``, means a new step.
DownloadProgress: TypeAlias = Callable[[int, int | None, str], None]


def silent(done_bytes: int, total_bytes: int | None, what: str) -> None:
    """Show nothing: the `DownloadProgress` of a caller who asked for none."""
