"""How long-running steps of the workload tell a caller how far they are."""

from typing import Protocol


class DownloadProgress(Protocol):
    """Anything that can be called as ``progress(done_bytes, total_bytes, what)``.

    ``done_bytes`` rises from 0; ``total_bytes`` is None where nobody knows it; ``what`` names the step in a
    few words, such as ``"cifar-10-python.tar.gz"``. A new ``what`` means a new step.
    """

    def __call__(self, done_bytes: int, total_bytes: int | None, what: str, /) -> None:
        """Take note of the state; called often, so it should return quickly."""


def silent(done_bytes: int, total_bytes: int | None, what: str) -> None:
    """Show nothing: the `DownloadProgress` of a caller who asked for none."""
