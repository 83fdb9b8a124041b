"""A process group that ends with this process, however this process ends.

A worker asks the kernel to end it with its parent; the processes that its training loop starts (multiprocessing, the
workers of a DataLoader) have not asked for anything. So each worker runs in a process group of its own, whose leader is
a shell that waits for the end of a pipe. The other end is this process's alone, and the kernel closes it even after
SIGKILL. Then the shell kills the group, itself included. Nobody has to run Python for that, so that native code which
holds the interpreter's lock can't put it off; a shell takes about a millisecond to start and less than a megabyte.

As the leader stays until it is waited for, the group's number can't pass to strangers meanwhile. What a training loop
starts in a session of its own leaves the group, and is its own affair.
"""

import os
import signal
import subprocess
from contextlib import suppress

#: Ignored signals: a terminal that goes away, or a group left behind by its parent, must not end the leader first.
_LEADER = "trap '' HUP INT TERM; read -r line; kill -KILL 0"


class ProcessGroup:
    """A process group without members but its leader; start processes with ``process_group=group.number``.

    Raises:
        OSError: the system does not let another process start.

    Attributes:
        number: the group's number.
    """

    def __init__(self) -> None:
        theirs, self._hold = os.pipe()
        try:
            self._leader = subprocess.Popen(  # noqa: S603  (a program of our own)
                ["/bin/sh", "-c", _LEADER],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                process_group=0,
            )
        except OSError:
            os.close(self._hold)
            raise
        finally:
            os.close(theirs)
        self.number = self._leader.pid

    def kill(self) -> None:
        """Kill all that are in the group, and free its number."""
        if self._leader.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.number, signal.SIGKILL)
        os.close(self._hold)
        self._leader.wait()
