"""Training loops of users, for tests: quick, deterministic, and with every way to end."""

import ctypes
import math
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

from fairtrial import Diverged
from fairtrial.records import Machine


def machine(trial=None):
    """Describe a machine that nobody has."""
    return Machine({"torch": "2"}, "processor", "cpu", 1, "system")


def good(trial):
    """Learn a little in each epoch, by a rule of arm and seed."""
    pace = trial.settings.params.get("pace", 1)
    for epoch in range(1, trial.epochs + 1):
        trial.progress(1, 2, train_acc=0.5)
        acc = 1 - math.exp(-pace * epoch / 5) + trial.seed / 100
        yield {
            "train_loss": 2 / (pace * epoch),
            "train_acc": acc,
            "test_loss": 2.5 / (pace * epoch),
            "test_acc": acc - 0.1,
            "train_seconds": 2.0,
            "eval_seconds": 0.5,
            "grad_norm": 1.0 / epoch,
        }


def mixed(trial):
    """Behave as the arm's parameter `end` says, in the second epoch."""
    for epoch, metrics in enumerate(good(trial), start=1):
        end = trial.settings.params["end"] if epoch == 2 else "well"
        if end == "nan":
            metrics["train_loss"] = math.nan
        if end == "inf":
            metrics["test_loss"] = math.inf
        if end == "says so":
            raise Diverged("weights exploded in epoch 2")
        if end == "raises":
            raise RuntimeError("boom")
        if end == "no record":
            yield 3.0
        if end == "empty":
            yield {}
        if end == "percent":
            metrics["test_acc"] = 81.5
        if end == "too many":
            yield from good(trial)
        if end == "interrupt" and "FAIRTRIAL_TEST_INTERRUPT" in os.environ:
            signal.raise_signal(signal.SIGINT)
        yield metrics


def telling(trial):
    """Report fingerprints: two before the first step, one again later, and end as the arm's parameter `end` says."""
    trial.fingerprint(initial_weights=f"weights {trial.seed}", batch_order="not known yet")
    for epoch, metrics in enumerate(good(trial), start=1):
        if epoch == 2:
            trial.fingerprint(batch_order=f"order {trial.seed}", data="all")
        if epoch == 3 and trial.settings.params.get("end") == "raises":
            trial.fingerprint(data="none")
            raise RuntimeError("boom")
        yield metrics


def telling_nonsense(trial):
    """Report a fingerprint that is none."""
    trial.fingerprint(initial_weights=3)
    yield {"test_acc": 0.5}


def nothing_at_all(trial):
    """Yield no record."""
    yield from ()


def dying(trial):
    """Take the process down, as the arm's parameter `end` says, in the second epoch."""
    for epoch, metrics in enumerate(good(trial), start=1):
        end = trial.settings.params.get("end", "well") if epoch == 2 else "well"
        if end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if end == "exit":
            os._exit(0)
        if end == "sys.exit":
            sys.exit(3)
        if end == "segfault":
            ctypes.string_at(0)
        if end == "close the pipe":
            (pipe,) = (number for number in range(3, 100) if is_socket(number))
            socket.socket(fileno=pipe).shutdown(socket.SHUT_WR)
            time.sleep(60)
        if end == "leave a child behind":  # it holds the pipe open, as a DataLoader's would
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            Path("child").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)
        yield metrics


def dying_at_first(trial):
    """Save each epoch; take down the process that the arm's parameter `end` names in the second, the first time."""
    done = trial.load() or 0
    with Path(f"{trial.arm}{trial.seed}.begun").open("a") as file:
        file.write(f"{done}\n")
    died = Path(f"{trial.arm}{trial.seed}.died")
    for epoch, metrics in enumerate(good(trial), start=1):
        if epoch <= done:
            continue
        end = trial.settings.params.get("end")
        if epoch == 2 and end and not died.exists():
            died.touch()
            time.sleep(0.5)  # so that what was told before is on its way
            os.kill(os.getppid() if end == "parent" else os.getpid(), signal.SIGKILL)
            time.sleep(60)
        yield metrics
        trial.save(epoch)


def stubborn(trial):
    """Do as `beating` does, and ignore all requests to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield from beating(trial)


def waiting_for_go(trial):
    """Report the process; after the first record wait for a file named go, in small steps."""
    for epoch, metrics in enumerate(good(trial), start=1):
        yield metrics | {"pid": os.getpid(), "parent": os.getppid()}
        while epoch == 1 and not Path("go").exists():
            time.sleep(0.02)


def beating(trial):
    """Never end; add to a file, named for arm and seed, all the time. One record, as more than are due end a trial."""
    with Path(f"{trial.arm}{trial.seed}").open("ab", buffering=0) as file:
        file.write(b".")
        yield {"pid": os.getpid()}
        while True:
            file.write(b".")
            time.sleep(0.01)


def meeting(trial):
    """Wait until trials of both seeds run at once."""
    Path(f"here{trial.seed}").touch()
    while not Path(f"here{1 - trial.seed}").exists():
        time.sleep(0.01)
    yield {"pid": os.getpid()}


def looking_around(trial):
    """Report what a worker process is like."""
    os.kill(os.getpid(), signal.SIGINT)
    sys.stdout.write("printed by a loop\n")
    yield {
        "pid": os.getpid(),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "place": int(os.environ.get("TEST_PLACE", "-1")),
        "set_ups": SET_UPS,
        "inherited": subprocess.check_output(["sh", "-c", LIST_SOCKETS], close_fds=False).count(b"\n"),
    }


SET_UPS = 0
LIST_SOCKETS = "for file in /proc/self/fd/*; do if test -S $file; then echo $file; fi; done"


def is_socket(number):
    """Tell whether a file descriptor is an open socket."""
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False


def set_up():
    """Count how often this is called in this process."""
    global SET_UPS  # noqa: PLW0603
    SET_UPS += 1


def place(number):
    """Tell a worker its place."""
    return {"TEST_PLACE": str(number)}


def machine_that_dies_once():
    """Kill the first process that asks."""
    if not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return machine()


def machine_that_ends(trial):
    """Take down every process that asks."""
    os._exit(8)


def put_in_cache(get):
    """Take note in this node's cache that data came, and which."""
    folder = Path(os.environ["FAIRTRIAL_CACHE"])
    with (folder / "came").open("a") as file:
        file.write(f"{get()}\n")


def machine_that_dies():
    """Take down every process that asks."""
    os._exit(7)


not_callable = 3
