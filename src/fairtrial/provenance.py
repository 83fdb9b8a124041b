"""The conditions under which a study's trials run, and how they differ from earlier ones."""

import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fairtrial.errors import StudyError
from fairtrial.scheduler import plan
from fairtrial.sources import code_of, forget, is_digest
from fairtrial.spec import Study, flatten
from fairtrial.store.base import StoredStudy
from fairtrial.trial import Machine, Trial, TrialResult

#: Packages whose version can change a trial's numbers.
PACKAGES = ("fairtrial", "torch")


def git_commit(folder: Path) -> str | None:
    """The git commit of a folder, followed by ``+`` if tracked files have changed; None if there is none."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


class RunConditions:
    """The conditions under which the trials of a study have run so far, from their results.

    Trials that start anew, by hash in ``anew``, count but for their code: nothing of what it computed is kept.
    """

    def __init__(self, results: Iterable[TrialResult], anew: Collection[str] = ()) -> None:
        self._shared: dict[str, set[str]] = {}
        self._data: dict[str, set[str]] = {}
        self._code = _EarlierCode()
        for result in results:
            kept = result.trial not in anew
            self.add(result.arm, result.seed, result.machine if kept else replace(result.machine, code={}))

    def add(self, arm: str, seed: int, machine: Machine) -> None:
        """Add the conditions of a trial that has started; nodes of one cluster can differ, too."""
        for name, value in _shared(machine).items():
            self._shared.setdefault(name, set()).add(value)
        self._data.setdefault(arm, set()).add(machine.data)
        self._code.add(arm, seed, machine.code)

    def differences(self, trial: Trial, machine: Machine) -> tuple[str, ...]:
        """List how the conditions of a trial that starts differ from earlier ones: ``("torch 2.12.0, now 2.13.0",)``.

        Compared are versions of fairtrial and torch, threads, the processor (or accelerator) and what computes the
        layers, the user's own code, and the data's digest with that of trials of the same arm. An unknown condition is
        no difference.
        """
        found = []
        for name, now in _shared(machine).items():
            before = {value for value in self._shared.get(name, ()) if _kind(value) != _kind(now)}
            found += [f"{name} {_either(before)}, now {now}"] if before else []
        before = self._data.get(trial.arm, set()) - {"", machine.data}
        if before and machine.data:
            found.append(f"data {_either({value[:12] for value in before})}, now {machine.data[:12]}")
        if code := ", ".join(self._code.differences(trial.arm, machine.code)):
            found.append(f"other code: {code}")
        return tuple(found)


def changed_code(study: Study, results: Iterable[TrialResult]) -> str:
    """Say how the user's own code differs from what a study's trials have run, if it does."""
    forget()
    earlier = _EarlierCode()
    for result in results:
        earlier.add(result.arm, result.seed, result.machine.code)
    found = (line for arm in study.arms for line in earlier.differences(arm.name, code_of(arm.settings.entries)))
    return ", ".join(dict.fromkeys(found))


class _EarlierCode:
    """The code of earlier trials: by file or package, each digest or version with the last seed that ran it."""

    def __init__(self) -> None:
        self._seeds: dict[str, dict[str, int]] = {}
        self._names: dict[str, set[str]] = {}  # of files and packages, by arm

    def add(self, arm: str, seed: int, code: Mapping[str, str]) -> None:
        for name, value in code.items():
            seeds = self._seeds.setdefault(name, {})
            seeds[value] = max(seed, seeds.get(value, seed))
        if code:
            self._names[arm] = set(code)

    def differences(self, arm: str, code: Mapping[str, str]) -> Iterator[str]:
        """Say what has changed since any trial that ran it, and what is new or gone since this arm's last trial."""
        for name, value in code.items():
            before = {other: seed for other, seed in self._seeds.get(name, {}).items() if other != value}
            if before:
                versions = "" if is_digest(value) else f" from {_either(before)} to {value}"
                yield f"{name} has changed{versions} since seed {max(before.values())}"
        earlier = self._names.get(arm, set()) if code else set()
        yield from (f"{name} is new" for name in sorted({*code} - earlier) if earlier and name not in self._seeds)
        yield from (f"{name} is not used any more" for name in sorted(earlier - {*code}))


def abandoned_study(study: Study, planned: Sequence[Trial], stored: Sequence[StoredStudy]) -> Study | None:
    """Find the study that the same file and overrides described at their last run, if this run would abandon it.

    That is if it has started, and has trials that this study, with its trials ``planned``, has not: a study that only
    adds seeds abandons nothing. Whether it is complete is not checked. ``stored`` has the one that ran last first.
    """
    source = study.origin.source, study.origin.overrides
    last = next((one for one in stored if source[0] and (one.source, one.assignments) == source), None)
    if last is None or last.hash == study.hash or not (last.started or sum(last.outcomes.values())):
        return None
    try:
        before = Study.from_toml(last.toml)
    except StudyError:  # from a release that knew other keys; only that one could resume it
        return None
    return before if {trial.hash for trial in plan(before)} - {trial.hash for trial in planned} else None


def changed_keys(before: Study, now: Study) -> tuple[str, ...]:
    """List the keys in which two studies differ, as ``optimizer.lr 0.001, now 0.002``."""
    old, new = (dict(flatten(study.to_dict())) for study in (before, now))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return tuple(f"{key} {old.get(key, 'not set')}, now {new.get(key, 'not set')}" for key in keys)


def _shared(machine: Machine) -> Mapping[str, str]:
    versions = {name: machine.versions[name] for name in PACKAGES if name in machine.versions}
    computed_on = machine.processor if machine.device == "cpu" else machine.device
    known = {"threads": str(machine.threads), "processor": computed_on, "layers": machine.layers}
    return versions | {name: value for name, value in known.items() if value}


def _kind(value: str) -> str:
    """A condition without its details: torch's own layers compute the same, why ever they do."""
    return value.partition(":")[0] if value.startswith("plain: ") else value


def _either(values: Iterable[str]) -> str:
    return " or ".join(sorted(values))
