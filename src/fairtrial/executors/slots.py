"""How many trials run side by side on one machine, and with how many threads each."""

import os
from dataclasses import dataclass

from fairtrial.errors import FairtrialError

#: The variable that chooses the device; see `fairtrial.training.devices`, whose import would take a second.
DEVICE_VARIABLE = "FAIRTRIAL_DEVICE"

#: At most so many workers, or threads of each.
MOST = 10_000


@dataclass(frozen=True)
class Slots:
    """Room for trials on one machine: worker processes, threads of each, and cores that this process may use."""

    workers: int
    threads: int
    cores: int
    gpus: int = 0  # whose processes have several trials each; 0 if each trial has a process

    @property
    def crowded(self) -> bool:
        """Whether there are more threads than cores, so that trials wait for each other."""
        return (self.gpus or self.workers) * self.threads > self.cores


def choose_slots(
    trials: int, workers: int | None, threads: int | None, *, cores: int | None = None, gpus: int = 0
) -> Slots:
    """Decide how many workers a set of trials gets, and how many threads each.

    The number of threads never depends on the number of trials: it can change the last bits of a record, and a resumed
    study must continue with the same numbers. By default a worker has one thread, because two trials on two cores beat
    one trial on two threads; and there is a worker for each GPU, or as many as the cores have room for.

    Example:
        >>> choose_slots(trials=10, workers=None, threads=4, cores=8)
        Slots(workers=2, threads=4, cores=8, gpus=0)
    """
    check_counts(workers=workers, threads=threads)
    cores = cores or usable_cores()
    threads = threads or 1
    workers = workers or gpus or max(1, cores // threads)
    return Slots(max(1, min(workers, trials)), threads, cores)


def check_counts(**numbers: int | None) -> None:
    """Refuse a number of workers or threads that is neither None nor possible, with a FairtrialError."""
    for name, number in numbers.items():
        if number is not None and (type(number) is not int or number < 1):
            raise FairtrialError(f"{name} = {number!r}: must be an integer of at least 1")
        if number is not None and number > MOST:
            raise FairtrialError(f"{name}: must be at most {MOST:,}")


def usable_cores() -> int:
    """Count the cores that this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
