"""Training loops of users, for tests: quick, deterministic, and with every way to end."""

import ctypes
import math
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

from fairtrial import Diverged, reporting
from fairtrial.trial import Machine, Snapshot


def machine(trial=None):
    """Describe a machine that nobody has."""
    return Machine({"torch": "2"}, "processor", "cpu", 1, "system")


def good(trial):
    """Learn a little in each epoch, by a rule of arm and seed."""
    pace = trial.settings.params.get("pace", 1)
    for epoch in range(1, trial.epochs + 1):
        trial.progress(1, 2, train_acc=0.5)
        acc = 1 - math.exp(-pace * epoch / 5) + trial.seed % 100 / 100  # fresh seeds begin at 1000
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
        if end == "too many":
            yield from good(trial)
        if end == "interrupt" and "FAIRTRIAL_TEST_INTERRUPT" in os.environ:
            signal.raise_signal(signal.SIGINT)
        yield metrics


def filling_memory(trial):
    """Train; the arm `big` has no memory beside another trial, which it waits for at first."""
    own = Path(f"running-{trial.arm}{trial.seed}")
    own.touch()
    big, first = trial.arm == "big", not Path("was-full").exists()
    try:
        while first and not others(own):
            time.sleep(0.01)
        for _ in range(trial.epochs):
            time.sleep(0.05)
            if big and others(own):
                Path("was-full").touch()
                raise MemoryError
            yield {"test_acc": 0.5}
        while not big and first and not Path("was-full").exists():
            time.sleep(0.01)
    finally:
        own.unlink()


def others(own):
    """The trials that run, but for one."""
    return [path for path in Path().glob("running-*") if path != own]


#: First records that no study can use, by name.
BAD = {
    "percent": {"test_acc": 81.5},
    "text": {"test_acc": "0.8"},
    "truth": {"test_acc": True},
    "nothing": {"test_acc": None},
    "many": {"test_acc": [0.8, 0.9]},
    "missing": {"train_loss": 1.0, "val_acc": 0.5},
    "no record": 0.8,
    "empty": {},
}


def in_percent(trial):
    """Yield accuracies in percent, which begin below 1, as of many classes."""
    for acc in (0.9, 20.9):
        yield {"test_acc": acc}


def badly(trial):
    """Yield the first record that the parameter `first` names."""
    yield BAD[trial.settings.params["first"]]
    yield {"test_acc": 0.8}


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
    """Take the process down, as the arm's parameter `end` says, in the second epoch; only so often, if `times` says."""
    end, times = trial.settings.params.get("end", "well"), trial.settings.params.get("times", 1000)
    for epoch, metrics in enumerate(good(trial), start=1):
        if epoch == 2 and end != "well" and count_up("deaths") <= times:
            end_process(end)
        yield metrics


def end_process(end):  # noqa: PLR0912  (a list)
    """End this process in the way that is asked for."""
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
        leave_a_child()
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "memory":
        raise MemoryError
    if end == "much memory":
        bytearray(1 << 40)
    if end == "no room":
        hoard = []
        try:
            while True:
                hoard.append(bytearray(1 << 18))
        except MemoryError:
            raise ValueError("field 'target' is required for AnnAssign") from None  # as CPython's compiler once did
    if end == "torch tensors":
        import torch

        kept = [torch.empty(1 << 28) for _ in range(1000)]  # none of which is ever touched
        raise AssertionError(len(kept))
    if end == "torch memory":  # what torch raises on a CPU
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
    if end == "gpu memory":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    if end == "loop":
        while True:
            pass
    if end == "hold the lock":
        ctypes.PyDLL(None).pause()
    if end == "stop":
        Path("stopped").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's."""


def ending(trial):
    """End as the arm's parameter `end` says, in the second epoch, in any way at all."""
    end = trial.settings.params["end"]
    for epoch, metrics in enumerate(mixed(trial), start=1):
        if epoch == 2:
            end_process(end)
        yield metrics


def leave_a_child():
    """Fork a process that does nothing for long, and write down which."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    with Path("children").open("a") as file:
        file.write(f"{child}\n")


def forking(trial):
    """Fork in the second epoch, and forget that there are two of them now; the second ends as `end` says."""
    for epoch, metrics in enumerate(good(trial), start=1):
        child = fork() if epoch == 2 else 1
        if epoch == 2 and child:
            os.waitpid(child, 0)
        if child == 0:
            end = trial.settings.params.get("end")
            if end == "sys.exit":
                sys.exit(0)
            if end == "raises":
                raise RuntimeError("in a fork")
            if end == "returns":
                return
        yield metrics


def fork():
    """Fork a process that may have threads, which newer Pythons warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def parenting(trial):
    """Fork a child, then hold the interpreter's lock in native code and never let go."""
    leave_a_child()
    yield {"pid": os.getpid()}
    ctypes.PyDLL(None).pause()


def count_up(name):
    """Count how often this was called, in all processes together."""
    with Path(name).open("ab") as file:
        file.write(b".")
        file.flush()
        return os.fstat(file.fileno()).st_size


def keeping(trial):
    """Walk at random, with all that matters saved after each epoch and within."""
    generator = random.Random(trial.seed)
    state = trial.load() or {"epoch": 1, "step": 0, "where": 0.0, "random": generator.getstate()}
    generator.setstate(state["random"])
    step, where = state["step"], state["where"]
    trial.fingerprint(initial_weights=f"weights {trial.seed}")
    for epoch in range(state["epoch"], trial.epochs + 1):
        for step in range(step, 4):  # noqa: B020  (an epoch that was begun goes on where it stopped)
            where += generator.gauss(0, 1)
            if step == 1 or trial.checkpoint_due:
                trial.save({"epoch": epoch, "step": step + 1, "where": where, "random": generator.getstate()})
            time.sleep(trial.settings.params.get("sleep", 0))
        yield {"train_loss": abs(where), "test_acc": generator.random(), "train_seconds": time.monotonic()}
        step = 0
        trial.save({"epoch": epoch + 1, "step": 0, "where": where, "random": generator.getstate()})
    trial.fingerprint(final_weights=where.hex())


def keeping_until_go(trial):
    """Be `keeping`, and after each record wait for a file named go."""
    for record in keeping(trial):
        yield record
        while not Path("go").exists():
            time.sleep(0.02)


def keeping_a_diary(trial):
    """Be `keeping`, and write down what ends it before its time."""
    try:
        yield from keeping(trial)
    except BaseException as end:
        Path("diary").write_text(type(end).__name__)
        raise


def slow(trial):
    """Take a moment."""
    time.sleep(0.3)
    yield {"train_loss": 1.0}


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
        "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
        "oom_score_of_child": int(subprocess.check_output(["cat", "/proc/self/oom_score_adj"])),
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


def set_up(threads):
    """Count how often this is called in this process."""
    global SET_UPS  # noqa: PLW0603
    SET_UPS += 1


def place(number):
    """Tell a worker its place."""
    return {"TEST_PLACE": str(number)}


def machine_that_dies_once(trial=None):
    """Kill the first process that asks."""
    if not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return machine()


def machine_that_dies_for_some(trial):
    """Take down the process that asks for the arm `bad`; each time another trial has begun since."""
    if trial.arm == "bad":
        begun = Path("begun").stat().st_size if Path("begun").exists() else 0
        while Path("begun").exists() and Path("begun").stat().st_size == begun and begun < 12:
            time.sleep(0.01)
        os._exit(7)
    count_up("begun")
    return machine()


def machine_that_needs_memory(trial=None):
    """Ask for a gigabyte before a trial begins."""
    bytearray(1 << 30)
    return machine()


def machine_that_ends(trial):
    """Take down every process that asks."""
    os._exit(8)


def put_in_cache(get):
    """Take note in this node's cache that data came, and which."""
    folder = Path(os.environ["FAIRTRIAL_CACHE"])
    with (folder / "came").open("a") as file:
        file.write(f"{get()}\n")


def machine_that_dies(trial=None):
    """Take down every process that asks."""
    os._exit(7)


not_callable = 3


def tunable(trial):
    """Be best at the learning rate `best`; the rate `fatal`, and those above it, diverge or raise."""
    rate, params = trial.settings.optimizer.lr, trial.settings.params
    with Path("seeds.txt").open("a") as file:
        file.write(f"{trial.arm} {trial.seed} {trial.weights_seed} {trial.order_seed}\n")
    if "FAIRTRIAL_TEST_INTERRUPT" in os.environ and trial.arm == os.environ["FAIRTRIAL_TEST_INTERRUPT"]:
        signal.raise_signal(signal.SIGINT)
    if rate >= params.get("fatal", math.inf):
        raise Diverged("the rate was too high")
    if rate >= params.get("fails", math.inf):
        raise RuntimeError("boom")
    random.seed(f"{trial.arm} {trial.seed}")
    for _ in range(trial.epochs):
        accuracy = 0.8 - 0.02 * math.log10(rate / params.get("best", 1e-3)) ** 2
        # What is best on the test set is another rate: it must not choose.
        test = 0.7 + 0.01 * math.log10(rate) + random.gauss(0, 0.001)
        yield {"train_loss": 1.0, "val_acc": accuracy, "val_loss": 1 - accuracy, "test_acc": test, "chance": 0.1}


@reporting
def endless_in_a_callback(trial, report):
    """Report an epoch, and never another one."""
    report({"test_acc": 0.5})
    time.sleep(600)


#: The numbers of cores that this process was told, the last of them now.
CORES = [1]


def use_cores(number):
    """Take a number of cores down."""
    CORES.append(number)


def seeing_cores(trial):
    """Yield the number of cores whenever it has become another: as many times as there are epochs."""
    seen = trial.settings.params.get("first", 1)
    for _ in range(trial.epochs):
        deadline = time.monotonic() + 60
        while CORES[-1] == seen and time.monotonic() < deadline:
            time.sleep(0.01)
        seen = CORES[-1]
        yield {"train_loss": 1.0, "cores": seen}


def once_there_is_go(trial):
    """Wait for a file named go."""
    while not Path("go").exists():
        time.sleep(0.01)
    yield {"train_loss": 1.0, "cores": CORES[-1]}


def seeing_or_waiting(trial):
    """Be `seeing_cores` for the arm `a`, or else `once_there_is_go`."""
    return (seeing_cores if trial.arm == "a" else once_there_is_go)(trial)


def snapping(trial):
    """Take two snapshots an epoch, and save its state; with "crash", die once in the third epoch."""
    done = trial.load() or 0
    progress = trial.xray_progress
    for epoch in range(done + 1, trial.epochs + 1):
        for _ in range(2 if trial.xray_wanted else 0):
            progress.steps += 1
            statistics = {"eps_1": progress.steps / 3, "odd": float("inf")}
            parts = {"linear": statistics}, {"0.weight": statistics}
            progress.snapshots.append(
                Snapshot(trial.arm, trial.seed, epoch, progress.steps, statistics, *parts, ("no cosine",))
            )
        if epoch == 3 and "crash" in trial.settings.params and not done:
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"train_loss": 1 / epoch, "test_acc": 0.5}
        trial.save(epoch)


def holding_a_gpu(trial):
    """Say which device this process was given, and wait for a file."""
    Path(f"began-{trial.arm}{trial.seed}").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    yield {
        "told": float(os.environ["FAIRTRIAL_DEVICE"] == "cuda"),
        "shown": len(os.environ.get("CUDA_VISIBLE_DEVICES", "")),
    }
