"""A simulated workload: arms whose true means, spreads and failures are known, and that train nothing.

Statistics can be checked only where the truth is known. Every parameter of `SimulatedArm` is a setting of an arm::

    reference = "baseline"
    seeds = { min = 3, max = 12 }
    [training]
    loop = "fairtrial.testing:simulate"
    epochs = 3
    [params]
    mean = 0.80
    [arms.baseline]
    [arms.better]
    params.mean = 0.82
    [arms.wild]
    params = { noise_sd = 0.03, diverge_rate = 0.2 }

In Python, `simulated_study` builds such a study, `simulated_results` its results without a store, `executor` runs it in
this process, `Instead` makes an executor run anything else, and `draw` returns arrays for thousands of studies.
`assert_not_worse` is another matter: a gate for your own tests.
"""

import hashlib
import math
import time
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fairtrial.api import load
from fairtrial.errors import Diverged, FairtrialError
from fairtrial.executors import base
from fairtrial.executors.base import Executor, Session, Workload
from fairtrial.executors.inline import InlineExecutor
from fairtrial.results import StudyResults
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.trial import Machine, Trial, TrialContext, TrialResult

if TYPE_CHECKING:
    from fairtrial.stats.gate import Gate

MACHINE = Machine(versions={}, processor="simulated", device="simulated", threads=1, system="simulated")

# Streams of random numbers that must not run into each other.
_WEIGHTS, _ORDER, _NOISE, _FATE, _REST, _VALIDATION = range(6)


@dataclass(frozen=True)
class SimulatedArm:
    """What an arm does. A trial's final test accuracy is mean + weights effect + order effect + noise."""

    mean: float = 0.8  # true mean of the final test accuracy, which is also the best
    gap: float = 0.05  # true mean of how much higher the training accuracy ends
    gap_sd: float = 0.003  # standard deviation of the gap
    weights_sd: float = 0.008  # standard deviation of the effect of the initial weights, equal for all arms
    order_sd: float = 0.006  # standard deviation of the effect of the order of batches, equal for all arms
    noise_sd: float = 0.005  # standard deviation of each trial's own noise, whose mean is 0
    noise: Literal["normal", "heavy", "skewed"] = "normal"  # heavy: Student's t, 3 degrees; skewed: exponential
    rate: float = 5.0  # how fast the accuracy rises: it covers all but exp(-rate) of the way
    diverge_rate: float = 0.0  # probability that a trial diverges, halfway through its epochs
    fail_rate: float = 0.0  # probability that it raises an error instead
    diverge_seeds: tuple[int, ...] = ()  # seeds that diverge in any case
    fail_seeds: tuple[int, ...] = ()  # seeds that raise an error in any case
    seconds: float = 10.0  # reported time of an epoch, on average
    seconds_sd: float = 0.01  # standard deviation of a trial's pace, as a fraction of that
    sleep: float = 0.0  # seconds for which an epoch really sleeps
    best_lr: float = 0.0  # the learning rate at which the mean is reached, 2 points less a squared decade; 0: any
    arm: str = ""  # a name, for arms that differ in nothing else

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Read an arm from a trial's parameters; a ValueError names an unknown parameter or distribution."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(params).difference(known)):
            raise ValueError(f"params.{unknown[0]}: the simulated workload has {', '.join(known)}")
        values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in params.items()}
        arm = cls(**values)
        if arm.noise not in _NOISES:
            raise ValueError(f'params.noise = "{arm.noise}": must be one of {", ".join(_NOISES)}')
        return arm


def simulate(trial: TrialContext) -> Iterator[dict[str, float]]:
    """Act as a training loop: the same records for the same arm and seeds, at no cost.

    All arms of a seed share its effects of weights and order, and report that by fingerprints, as trained arms do.

    Yields:
        After each epoch what fairtrial's own loop reports: losses, accuracies and times; with ``best_lr`` those of a
        validation split too.

    Raises:
        Diverged, RuntimeError: the arm's parameters make the trial diverge, or fail.
    """
    arm = SimulatedArm.of(trial.settings.params)
    trial.fingerprint(initial_weights=f"simulated {trial.weights_seed}", batch_order=f"simulated {trial.order_seed}")
    name = int.from_bytes(hashlib.sha256(trial.arm.encode()).digest()[:8])  # the same in every process
    own = (name, trial.weights_seed, trial.order_seed)
    first, second = _rng(_FATE, *own).random(2)
    diverges = trial.seed in arm.diverge_seeds or first < arm.diverge_rate
    fails = trial.seed in arm.fail_seeds or second < arm.fail_rate
    shared = arm.weights_sd * _rng(_WEIGHTS, trial.weights_seed).standard_normal()
    shared += arm.order_sd * _rng(_ORDER, trial.order_seed).standard_normal()
    mean = arm.mean
    if arm.best_lr:
        mean -= 0.02 * math.log10(trial.settings.optimizer.lr / arm.best_lr) ** 2
    validation = mean + shared + arm.noise_sd * _rng(_VALIDATION, *own).standard_normal()
    final = mean + shared + arm.noise_sd * float(_NOISES[arm.noise](_rng(_NOISE, *own), (1,))[0])
    gap, pace = _rng(_REST, *own).standard_normal(2)
    gap, seconds = arm.gap + arm.gap_sd * gap, arm.seconds * math.exp(arm.seconds_sd * pace)
    for epoch in range(1, trial.epochs + 1):
        halfway = 2 * epoch > trial.epochs
        if halfway and diverges:
            raise Diverged(f"simulated: train_loss is nan in epoch {epoch}")
        if halfway and fails:
            raise RuntimeError("simulated failure")
        if arm.sleep:
            time.sleep(arm.sleep)
        part = math.expm1(-arm.rate * epoch / trial.epochs) / math.expm1(-arm.rate)
        record = _record(part * final, part * (final + gap), seconds)
        if arm.best_lr:
            found = _record(part * validation, part * validation, seconds)
            record |= {"val_acc": found["test_acc"], "val_loss": found["test_loss"]}
        yield record


def simulated_study(
    arms: Mapping[str, Mapping[str, Any] | SimulatedArm],
    *,
    seeds: int | Mapping[str, int] | None = 3,
    epochs: int = 3,
    name: str = "simulated",
    **sections: Any,
) -> Study:
    """Build a study of simulated arms, of which the first is the reference.

    Args:
        arms: by name, the parameters in which each differs from `SimulatedArm`'s defaults.
        seeds: a number, or ``{"min": 3, "max": 12}``; None where ``noise`` has a crossed design.
        epochs: of each trial.
        name: the study's name.
        **sections: other keys of the study, such as ``evidence={"margin": 0.01}``.

    Example:
        >>> simulated_study({"a": {}, "b": {"mean": 0.82}}, evidence={"margin": 0.01}).seeds
        3
    """
    return Study.from_dict(
        {
            "name": name,
            "reference": next(iter(arms)),
            "training": {"loop": "fairtrial.testing:simulate", "epochs": epochs},
            "arms": {arm: {"params": _params(own) | {"arm": arm}} for arm, own in arms.items()},
            **({} if seeds is None else {"seeds": seeds}),
            **sections,
        }
    )


def simulated_results(study: Study) -> tuple[TrialResult, ...]:
    """Run every trial that a simulated study may need, and return what a store would."""
    return tuple(_result(trial) for trial in plan(study))


class Instead:
    """Makes an executor run another workload than a study's own, such as another training loop on a made-up machine.

    Args:
        executor: what runs it.
        **changes: attributes of `executors.base.Workload`.

    Example:
        >>> executor = Instead(InlineExecutor(), loop=simulate)
    """

    def __init__(self, executor: Executor, **changes: Any) -> None:
        self.checkpoints = executor.checkpoints
        self._executor, self._changes = executor, changes

    def open(self, workload: Workload) -> Session:
        """Open a session for a study, with the changes."""
        return self._executor.open(replace(workload, **self._changes))


def executor() -> Executor:
    """Make an executor that runs simulated trials in this process, some thousands a second.

    Example:
        >>> fairtrial.run(study, store="made_up.db", executor=fairtrial.testing.executor())  # doctest: +SKIP
    """
    return Instead(InlineExecutor(), loop=simulate, machine=lambda _trial: MACHINE)


def assert_not_worse(
    study: Study | str | Path | StudyResults,
    margin: float,
    *,
    undecided: Literal["fail", "skip", "pass"] = "fail",
    **options: Any,
) -> "Gate":
    """Fail a test if a change makes training worse by the margin or more; the message is the gate's summary.

    Args:
        study: a study, or what `fairtrial.load` takes; or results, which are judged as they are.
        margin: in the measure's unit, as in ``fairtrial gate --not-worse-than``.
        undecided: what to do if the seeds, or the time, do not decide it: fail the test, skip it, or let it pass.
        **options: of `fairtrial.gate.gate`: ``baseline``, ``max_seeds``, ``max_seconds``, ``alpha``, ``store``,
            ``executor`` and so on. The store is ``fairtrial.db`` unless you name one.

    Returns:
        The gate, if it passed or was undecided and may be.

    Raises:
        AssertionError: it is worse, or undecided and must not be.
        FairtrialError: nothing could be compared.

    Example:
        >>> arms = {"adam": {}, "sgd": {"mean": 0.7}}
        >>> study = simulated_study(arms, seeds={"min": 3, "max": 12})
        >>> assert_not_worse(study, 0.01, store="made_up.db", executor=executor())
        Traceback (most recent call last):
        AssertionError: Gate failed: simulated-gate@...
    """
    from fairtrial.gate import gate, gate_runs  # noqa: PLC0415  (loads SciPy)
    from fairtrial.report.gate import gate_text  # noqa: PLC0415
    from fairtrial.stats.gate import Decision  # noqa: PLC0415

    if undecided not in {"fail", "skip", "pass"}:
        raise FairtrialError(f'undecided = {undecided!r}: must be "fail", "skip" or "pass"')
    if isinstance(study, StudyResults):
        found = gate_runs(study, not_worse_than=margin, **options)
    else:
        loaded = study if isinstance(study, Study) else load(study)
        found = gate(loaded, not_worse_than=margin, **options)
    text = gate_text(found, 100).rstrip()
    if found.decision is Decision.UNDECIDED and undecided == "skip":
        raise unittest.SkipTest(text)  # which pytest takes for a skip, too
    if found.decision is Decision.WORSE or (found.decision is Decision.UNDECIDED and undecided == "fail"):
        raise AssertionError(text)
    return found


def draw(
    arms: Mapping[str, SimulatedArm], *, seeds: int, studies: int = 1, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw the final test accuracies of so many studies of so many seeds at once, NaN where a trial diverges or fails.

    The distribution is that of `simulate`, the numbers are not. The first arm is the reference.

    Returns:
        Shape (studies, seeds, arms).

    Example:
        >>> values = draw({"a": SimulatedArm(), "b": SimulatedArm(0.9)}, seeds=3, rng=np.random.default_rng(0))
        >>> [verdict] = fairtrial.judge(values[0, :, 1:] - values[0, :, :1])          # doctest: +SKIP
    """
    shared = rng.standard_normal((2, studies, seeds, 1))
    columns = []
    for arm in arms.values():
        column = arm.mean + arm.weights_sd * shared[0] + arm.order_sd * shared[1]
        column = column + arm.noise_sd * _NOISES[arm.noise](rng, (studies, seeds, 1))
        lost = rng.random(column.shape) < 1.0 - (1.0 - arm.diverge_rate) * (1.0 - arm.fail_rate)
        lost[:, [seed for seed in (*arm.diverge_seeds, *arm.fail_seeds) if seed < seeds]] = True
        columns.append(np.where(lost, np.nan, column))
    return np.concatenate(columns, axis=2)


def _params(own: Mapping[str, Any] | SimulatedArm) -> dict[str, Any]:
    values = asdict(own) if isinstance(own, SimulatedArm) else own
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _record(test: float, train: float, seconds: float) -> dict[str, float]:
    """What an epoch reports, accuracies clipped to [0, 1]."""
    test, train = (min(max(value, 0.0), 1.0) for value in (test, train))
    return {
        "train_loss": -math.log(max(train, 1e-6)),
        "train_acc": train,
        "test_loss": -math.log(max(test, 1e-6)),
        "test_acc": test,
        "train_seconds": 0.9 * seconds,
        "eval_seconds": 0.1 * seconds,
    }


def _result(trial: Trial) -> TrialResult:
    messages = list(base.run_trial(trial, simulate, MACHINE))
    started, ended = messages[0], messages[-1]
    assert isinstance(started, base.Started)
    assert isinstance(ended, base.Ended)
    records = tuple(message.record for message in messages if isinstance(message, base.EpochFinished))
    fingerprints = [message.fingerprints for message in messages if isinstance(message, base.Fingerprinted)]
    return TrialResult(
        arm=trial.arm,
        seed=trial.seed,
        trial=trial.hash,
        outcome=ended.outcome,
        detail=ended.detail,
        started=started.at,
        ended=ended.at,
        machine=MACHINE,
        epochs=records,
        fingerprints=fingerprints[-1] if fingerprints else {},
    )


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


#: Draws noise of mean 0 and standard deviation 1 in a shape.
_NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], npt.NDArray[np.float64]]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3.0),
    "skewed": lambda rng, shape: rng.standard_exponential(shape) - 1.0,
}
