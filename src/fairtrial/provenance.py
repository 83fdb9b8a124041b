"""Checks that a study continues under the conditions under which it began."""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fairtrial.errors import StudyError
from fairtrial.scheduler import plan
from fairtrial.spec import Study, flatten
from fairtrial.store.base import StoredStudy
from fairtrial.trial import Machine, Trial, TrialResult

#: Packages another version of which can change a trial's numbers without anybody's doing.
PACKAGES = ("fairtrial", "torch")


class RunConditions:
    """Under which conditions the trials of a study have run so far.

    Args:
        results: what the store knows of the study.
    """

    def __init__(self, results: Iterable[TrialResult]) -> None:
        self._shared: dict[str, set[str]] = {}
        self._data: dict[str, set[str]] = {}
        for result in results:
            self.add(result.arm, result.machine)

    def add(self, arm: str, machine: Machine) -> None:
        """Take note that a trial of an arm has begun on a machine: nodes of one cluster can differ, too."""
        for name, value in _shared(machine).items():
            self._shared.setdefault(name, set()).add(value)
        self._data.setdefault(arm, set()).add(machine.data)

    def differences(self, trial: Trial, machine: Machine) -> tuple[str, ...]:
        """Tell in what a trial that begins differs from those before it.

        Args:
            trial: the trial.
            machine: where it is to run.

        Returns:
            Such as ``("torch 2.12.0, now 2.13.0",)``: versions of fairtrial and torch, threads, and the digest of the
            data against trials of the same arm. A condition that is not known on both sides is no difference.
        """
        found = []
        for name, now in _shared(machine).items():
            before = self._shared.get(name, set()) - {now}
            found += [f"{name} {_either(before)}, now {now}"] if before else []
        before = self._data.get(trial.arm, set()) - {"", machine.data}
        if before and machine.data:
            found.append(f"data {_either({value[:12] for value in before})}, now {machine.data[:12]}")
        return tuple(found)


def abandoned_study(study: Study, planned: Sequence[Trial], stored: Sequence[StoredStudy]) -> Study | None:
    """Find the study that the same file and overrides meant when they were run last, if this run would abandon it.

    Args:
        study: what they mean now.
        planned: its trials.
        stored: the studies in the store, the one that ran last first.

    Returns:
        The earlier study, some of whose trials have begun and are none of this study's; whether it is complete is not
        looked at. None if there is none: a study that only asks for more seeds, say, abandons nothing.
    """
    source, overrides = study.origin.source, study.origin.overrides
    same = [one for one in stored if source and (one.source, one.assignments) == (source, overrides)]
    if not same or same[0].hash == study.hash or not (same[0].started or sum(same[0].outcomes.values())):
        return None
    try:
        before = Study.from_toml(same[0].toml)
    except StudyError:  # of a release that knew other keys; only that one could continue it
        return None
    kept = {trial.hash for trial in planned}
    return None if all(trial.hash in kept for trial in plan(before)) else before


def changed_keys(before: Study, now: Study) -> tuple[str, ...]:
    """Tell in which keys two studies differ, as ``optimizer.lr 0.001, now 0.002``."""
    old, new = (dict(flatten(study.to_dict())) for study in (before, now))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return tuple(f"{key} {old.get(key, 'not set')}, now {new.get(key, 'not set')}" for key in keys)


def _shared(machine: Machine) -> Mapping[str, str]:
    versions = {name: machine.versions[name] for name in PACKAGES if name in machine.versions}
    return {**versions, "threads": str(machine.threads)}


def _either(values: Iterable[str]) -> str:
    return " or ".join(sorted(values))


def git_commit(folder: Path) -> str | None:
    """Name the git commit of a folder, with ``+`` behind it if tracked files have changed; None if there is none."""
    try:
        described = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None
