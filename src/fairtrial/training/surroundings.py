"""What surrounds a trial's work on its device: precision, a stream of its own, and random numbers of its own.

Trials that take turns in one process, see `fairtrial.trial.Turn`, each find these again as they left them.
"""

import gc
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from traceback import clear_frames
from typing import TypeVar

import torch

from fairtrial.training import precision

T = TypeVar("T")


class Surroundings:
    """The surroundings of one trial, entered for each of its turns.

    On a GPU there are a stream and a state of the GPU's random numbers, which a recorded graph keeps reading. On a CPU
    there is the state of its random numbers, if others take turns with this trial.

    Args:
        precision: of the trial's settings.
        device: what it trains on.
        in_turns: whether other trials run in this process, in turn with this one.
    """

    def __init__(self, precision: str, device: torch.device, *, in_turns: bool) -> None:
        self._precision, self._device, self._in_turns = precision, device, in_turns
        self._random: torch.Tensor | None = None  # of the CPU
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._generator = torch.Generator(device).graphsafe_get_state()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the trial's surroundings for a while."""
        with ExitStack() as inside:
            inside.enter_context(precision.in_force(self._precision, self._device))
            if self._in_turns:
                inside.enter_context(self._random_numbers())
            if self._device.type == "cuda":
                inside.enter_context(torch.cuda.stream(self._stream))
                inside.enter_context(self._random_numbers_of_gpu())
            yield

    def free_memory(self) -> None:
        """Free what a trial that has ended leaves in memory, which the next one needs.

        Its tensors, hooks and graphs refer to each other in circles, and torch keeps memory for the stream that had it.
        """
        if self._in_turns or self._device.type == "cuda":
            gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def _random_numbers(self) -> Iterator[None]:
        before = torch.get_rng_state()
        if self._random is not None:
            torch.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(before)

    @contextmanager
    def _random_numbers_of_gpu(self) -> Iterator[None]:
        """Let the default generator have this trial's state: that very object, for which graphs are recorded."""
        default = torch.cuda.default_generators[self._device.index or 0]
        before = default.graphsafe_get_state()
        default.graphsafe_set_state(self._generator)
        try:
            yield
        finally:
            default.graphsafe_set_state(before)


def surrounded(work: Generator[T, None, None], surroundings: Surroundings) -> Generator[T, None, None]:
    """Do a trial's work, each part of it within the surroundings; in between, they are those of others."""
    try:
        with closing(_Within(work, surroundings)) as parts:
            yield from parts
    except Exception as error:
        clear_frames(error.__traceback__)  # or they would keep the trial's tensors for as long as the error is known
        raise


class _Within(Iterator[T]):
    def __init__(self, work: Generator[T, None, None], surroundings: Surroundings) -> None:
        self._work, self._surroundings = work, surroundings

    def __next__(self) -> T:
        with self._surroundings.entered():
            return next(self._work)

    def close(self) -> None:
        with self._surroundings.entered():
            self._work.close()
