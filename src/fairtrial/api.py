"""The Python interface: load a study, run it, read its results. The command line calls the same functions."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairtrial import loading
from fairtrial.callbacks import Callback, closing
from fairtrial.errors import FairtrialError, StoreMissingError, StudyError, StudyNotFoundError
from fairtrial.results import StudyResults
from fairtrial.spec import Study
from fairtrial.store.base import Store, StoredStudy
from fairtrial.store.opening import opened_store
from fairtrial.store.url import DEFAULT_STORE

if TYPE_CHECKING:  # slow to load, and needed by one function each
    from fairtrial.estimate import Estimate
    from fairtrial.executors.base import Executor
    from fairtrial.training.bench import Bench
    from fairtrial.training.bench_gpu import GpuBench
    from fairtrial.training.datasets import FetchedDataset


def load(source: str | Path, overrides: Sequence[str] = (), *, store: str | Path | Store | None = None) -> Study:
    """Load a study.

    Args:
        source: a TOML file, the name of a study that ships with fairtrial or, given a store, NAME or NAME@HASH of a
            study in it.
        overrides: ``KEY=VALUE`` overrides, such as ``["training.epochs=3"]``.
        store: a store with further studies.

    Raises:
        StudyError: no such study, or not a valid one; the message begins with the file's name.

    Example:
        >>> load("quick", ["seeds=5"]).seeds
        5
    """
    return loading.load(source, overrides, [] if store is None else list_studies(store))


def run(
    study: Study,
    *,
    store: str | Path | Store = DEFAULT_STORE,
    executor: "Executor | None" = None,
    callbacks: Sequence[Callback] = (),
    retry_failed: bool = False,
    force: bool = False,
    progress: bool | None = None,
    xray: bool = True,
) -> StudyResults:
    """Train the missing trials of a study; if it has ``[tuning]``, tune its arms first.

    Every finished epoch is in the store. After Ctrl-C, a crash or an error, call this again to resume.

    Args:
        study: what to run.
        store: a file, a database URL or a store, which stays open.
        executor: what runs trials; by default ``AutoExecutor()``: GPUs, or worker processes on this machine. They do
            not import the script that calls this, so it needs no ``if __name__ == "__main__"``.
        callbacks: called as the study runs.
        retry_failed: train failed trials again. Diverged ones are results, and stay.
        force: continue although versions of torch or fairtrial, threads, processor, layers, data or your code differ
            from those of the study's earlier trials, or although the study's file was changed before its study was
            complete. Each trial records it.
        progress: show how far the study is: as a bar in a notebook, as text on standard error elsewhere. By default in
            notebooks alone.
        xray: take snapshots of the optimizers' states, which change no result; see `StudyResults.with_snapshots`.

    Raises:
        FairtrialError: something that every trial needs is missing or damaged; nothing was trained.
        ProvenanceError: the conditions or the study's file have changed; see ``force``.
        StoreLockedError: another process runs this study in this store.
        RecordError: a training loop's first record is not what the study needs; no trial has failed.
        CheckpointError: a trial's state can't be saved, for example because the disk is full.
        KeyboardInterrupt: raised again after trials had time to save their state.

    Example:
        >>> runs = run(load("quick"), executor=fairtrial.LocalExecutor(workers=2))  # doctest: +SKIP
        >>> runs  # doctest: +SKIP
        <StudyResults quick@943dd38e: 10 of 10 trials>
    """
    from fairtrial.report.notebook import progress_callbacks  # noqa: PLC0415
    from fairtrial.runner import run_study  # noqa: PLC0415  (what only reads results does without it)
    from fairtrial.tuning import tune  # noqa: PLC0415

    _check_run(study, executor)
    callbacks = (*progress_callbacks(progress), *callbacks)
    with opened_store(store) as opened, loading.importable(study), closing(callbacks):

        def train(one: Study) -> int:
            again = {"retry_failed": retry_failed, "force": force}
            return run_study(one, store=opened, executor=executor, callbacks=callbacks, xray=xray, **again)

        def say(text: str) -> None:
            for callback in callbacks:
                callback.on_warning(None, text)

        trained = 0
        if study.untuned:
            study, trained = tune(study, opened, train, say)
        trained += train(study)
        runs = StudyResults(study, tuple(opened.results(study)), trained, opened.history(study), store)
        for callback in callbacks:
            callback.on_results(runs)
        return runs


def _check_run(study: Study, executor: object) -> None:
    """Refuse what can't be run, in one line."""
    if not isinstance(study, Study):
        raise StudyError(f"run({study!r}): needs a study, such as fairtrial.load({study!r})")
    if study.tuning_round is not None:  # its looks count for nothing, so only `tune` may decide what is in it
        raise StudyError(
            f"{study.label}: tuning_round = {study.tuning_round}: rounds are run by [tuning]; run the study that is "
            "tuned, or leave tuning_round out"
        )
    if executor is not None and (isinstance(executor, type) or not hasattr(executor, "open")):
        raise FairtrialError(f"executor = {executor!r}: must be an executor, such as fairtrial.LocalExecutor()")


def open_results(
    study: Study | str | Path, overrides: Sequence[str] = (), *, store: str | Path | Store = DEFAULT_STORE
) -> StudyResults:
    """Read the results of a study from a store; nothing is trained.

    Args:
        study: the study, or what `load` takes. A name without overrides means the last study of that name in the store.
        overrides: ``KEY=VALUE`` overrides.
        store: a file, a database URL or a store.

    Raises:
        StoreMissingError: there is no store yet.
        StudyError: no such study, or it has not been run in this store.
    """
    with opened_store(store, create=False) as opened:
        found = study if isinstance(study, Study) else loading.load_recorded(study, overrides, opened.studies())
        if found.untuned:
            found = loading.found_tuned(found, opened.studies())
        return StudyResults(found, tuple(opened.results(found)), history=opened.history(found), store=store)


def list_studies(store: str | Path | Store = DEFAULT_STORE) -> list[StoredStudy]:
    """List the studies in a store and how far each one is, the one that ran last first; none if there is no store."""
    try:
        with opened_store(store, create=False) as opened:
            return opened.studies()
    except StoreMissingError:
        return []


def estimate_cost(
    study: Study,
    *,
    store: str | Path | Store = DEFAULT_STORE,
    workers: int | None = None,
    threads: int | None = None,
    trials_per_gpu: int | None = None,
    spread: float | None = None,
) -> "Estimate":
    """Estimate what the missing trials of a study will cost on this machine, and what other numbers of seeds would.

    Args:
        study: the study.
        store: the store that holds earlier results, if any.
        workers: worker processes; by default as many as `run` would use.
        threads: threads of each, by default 1.
        trials_per_gpu: trials side by side on each GPU, if there are any; by default as many as pay off.
        spread: standard deviation of a paired difference, in the metric's unit; by default that of earlier results.
    """
    from fairtrial.estimate import estimate  # noqa: PLC0415
    from fairtrial.tuning import tuning_trials_ended  # noqa: PLC0415

    if spread is not None and not (math.isfinite(spread) and spread > 0):
        raise FairtrialError(f"spread = {spread}: must be a positive number")
    tuned = 0
    try:
        found = open_results(study, store=store)
    except StoreMissingError:
        found = StudyResults(study, ())
    except StudyNotFoundError:  # not tuned yet
        found = StudyResults(study, ())
        with opened_store(store, create=False) as opened, loading.importable(study):
            tuned = tuning_trials_ended(study, opened)
    study = found.study
    with loading.importable(study):
        return estimate(
            study,
            found.results,
            history=found.history,
            workers=workers,
            threads=threads,
            trials_per_gpu=trials_per_gpu,
            spread=spread,
            tuned=tuned,
        )


def fetch_data(
    name: str, source: str | Path | None = None, *, progress: Callable[[int, int | None, str], None] | None = None
) -> "FetchedDataset":
    """Download a data set and verify it.

    Args:
        name: such as ``"cifar10"``.
        source: a folder or archive to read instead of downloading.
        progress: called with bytes done, bytes in all (None if unknown) and what is being fetched.

    Raises:
        DataError: no such data set, or it is damaged.
    """
    from fairtrial.training import datasets  # noqa: PLC0415

    return datasets.fetch(name, source=None if source is None else Path(source), progress=progress)


def bench(study: Study, *, threads: int = 1) -> "Bench | GpuBench":
    """Time training steps of a study's first arm on this machine, with fast and plain layers.

    On a GPU of NVIDIA's, time numbers of trials side by side, and measure their memory.
    """
    from fairtrial.training import bench as training_bench  # noqa: PLC0415

    with loading.importable(study):
        return training_bench.bench(study, threads=threads)
