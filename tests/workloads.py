"""Executors in tests: given a training loop and a machine directly, without a study's own preparations."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from unittest.mock import patch

import loops
from fairtrial.executors.base import Ended, EpochFinished, Workload
from fairtrial.executors.inline import InlineExecutor
from fairtrial.runner import run_study
from fairtrial.spec import Study
from fairtrial.testing import Instead
from fairtrial.trial import Outcome, Trial, TrialResult

#: As many as any test has workers.
SOME_TRIALS = tuple(
    Trial("a", seed, Study.from_dict({"name": "s", "reference": "a", "seeds": 1, "arms": {"a": {}}}).settings)
    for seed in range(8)
)


#: The arms of the trials that were submitted, by hash.
_ARMS = {}


def opened(executor, loop, machine=loops.machine, **changes):
    """Open an executor for a training loop."""
    return executor.open(Workload(loop, machine, **{"trials": SOME_TRIALS} | changes))


def submit(session, *trials):
    """Submit trials."""
    for trial in trials:
        _ARMS[trial.hash] = trial.arm
        session.submit(trial)


def arm(message):
    """Name the arm of a message's trial."""
    return _ARMS[message.trial_id]


def execute(executor, loop, trials, **changes):
    """Run trials to their ends, and give the messages."""
    with opened(executor, loop, **changes) as session:
        submit(session, *trials)
        return [message for message in session.messages() if message is not None]


def inline(loop, machine=loops.machine, checkpoints=None):
    """An executor in this process that runs another loop than a study's own."""
    return Instead(InlineExecutor(checkpoints), loop=loop, machine=machine)


@dataclass
class Done:
    """What a run of a study did: how many trials it trained, and all results of the study."""

    trained: int
    results: list[TrialResult]

    def count(self, outcome: Outcome) -> int:
        return sum(result.outcome is outcome for result in self.results)


def run(study, *, store, executor=None, watcher=None, settled=None, **options):
    """Run a study; `settled` decides in place of its verdicts which arms stop."""
    deciding = patch("fairtrial.stats.replay.Stops", lambda history: settled) if settled else nullcontext()
    with deciding:
        callbacks = [watcher] if watcher else []
        trained = run_study(study, store=store, executor=executor, callbacks=callbacks, **options)
    return Done(trained, store.results(study))


def patient(executor):
    """Let an executor wait for silent workers 10 s and no longer; on a busy machine a sound one needs some of them."""
    executor.limits = replace(executor.limits, silence=10)
    return executor


def told(messages):
    """All that came of each trial but the times."""
    found = {}
    for one in messages:
        match one:
            case EpochFinished(trial_id, record):
                found.setdefault(trial_id, []).append(repr(record))
            case Ended(trial_id, outcome, detail):
                found.setdefault(trial_id, []).append((outcome, detail.strip().split("\n")[-1]))
    return found
