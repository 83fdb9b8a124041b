"""The conditions under which a study's trials run, and how they differ from earlier ones."""

import os
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fairtrial.errors import StudyError
from fairtrial.files import find_program
from fairtrial.scheduler import plan
from fairtrial.sources import code_of, forget, is_digest
from fairtrial.spec import Study, flatten
from fairtrial.store.base import StoredStudy
from fairtrial.trial import Machine, Trial, TrialResult, kind_of_condition

#: Variables for the user's own settings, and for where git and repositories are; others may name another repository.
_KEPT = ("GIT_CONFIG_", "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES")
_WHERE = ("HEAD", "--show-object-format", "--show-toplevel", "--git-path", "index", "--git-path", "objects")

#: The user's own settings may turn these on for repositories in general. Whether a file system keeps modes of files is
#: a setting of the repository's, so modes are not compared.
_OFF = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.fileMode=false")
_STATUS = ("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty", "--no-renames")


def git_commit(folder: Path) -> str | None:
    """The git commit of a folder, followed by ``+`` if tracked files have changed; None if there is none.

    A folder can come from anybody, and a repository's settings name programs: ``core.fsmonitor``, filters, hooks and
    more. So none of its settings is in force where files are compared: git gets a directory of our own in place of
    ``.git``, with the repository's objects and index. What is uncommitted within submodules does not count, because git
    would ask them under their settings. A repository whose own settings change files as they are checked out (filters,
    ``core.autocrlf``) may get a ``+`` without a change.
    """
    git = find_program("git")
    if git is None:
        return None
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(_KEPT)}
    try:
        where = _run([git, "-C", str(folder), "rev-parse", *_WHERE], ours)
        commit, object_format, top, index, objects = where.splitlines()
        with tempfile.TemporaryDirectory(prefix="fairtrial-git-") as name:
            bare = Path(name)
            (bare / "refs").mkdir()
            (bare / "HEAD").write_text(f"{commit}\n")
            settings = "[core]\nrepositoryFormatVersion = 1\n[extensions]\nobjectFormat = "
            (bare / "config").write_text(f"{settings}{object_format}\n")
            repository = {
                "GIT_DIR": name,
                "GIT_WORK_TREE": top,
                "GIT_INDEX_FILE": str(folder / index),
                "GIT_OBJECT_DIRECTORY": str(folder / objects),
                "GIT_OPTIONAL_LOCKS": "0",  # the index is not written
            }
            changed = _run([git, "-C", top, *_OFF, *_STATUS], ours | repository)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return f"{commit}+" if changed else commit


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run git, and return what it prints; a SubprocessError if it fails."""
    done = subprocess.run(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=10,
        check=True,
    )
    return done.stdout


class RunConditions:
    """The conditions under which the trials of a study have run so far, from their results.

    Trials that start anew, by hash in ``anew``, count but for their code: nothing of what it computed is kept.
    """

    def __init__(self, results: Iterable[TrialResult], anew: Collection[str] = ()) -> None:
        self._shared: dict[str, set[str]] = {}
        self._files: dict[tuple[str, str], set[str]] = {}
        self._code = _EarlierCode()
        for result in results:
            kept = result.trial not in anew
            self.add(result.arm, result.seed, result.machine if kept else replace(result.machine, code={}))

    def add(self, arm: str, seed: int, machine: Machine) -> None:
        """Add the conditions of a trial that has started; nodes of one cluster can differ, too."""
        for name, value in machine.conditions.items():
            self._shared.setdefault(name, set()).add(value)
        for kind, digest in (("data", machine.data), ("weights", machine.weights)):
            self._files.setdefault((kind, arm), set()).add(digest)
        self._code.add(arm, seed, machine.code)

    def differences(self, trial: Trial, machine: Machine) -> tuple[str, ...]:
        """List how the conditions of a trial that starts differ from earlier ones: ``("torch 2.12.0, now 2.13.0",)``.

        Compared are versions of fairtrial and torch, threads, the processor (or accelerator) and what computes the
        layers, the user's own code, and the digests of data and of weights files with those of trials of the same arm.
        An unknown condition is no difference.
        """
        found = []
        for name, now in machine.conditions.items():
            before = {
                value for value in self._shared.get(name, ()) if kind_of_condition(value) != kind_of_condition(now)
            }
            found += [f"{name} {_either(before)}, now {now}"] if before else []
        for kind, digest in (("data", machine.data), ("weights", machine.weights)):
            before = self._files.get((kind, trial.arm), set()) - {"", digest}
            if before and digest:
                found.append(f"{kind} {_either({value[:12] for value in before})}, now {digest[:12]}")
        if code := ", ".join(self._code.differences(trial.arm, machine.code)):
            found.append(f"other code: {code}")
        return tuple(found)


def conditions_by_code(
    study: Study, results: Sequence[TrialResult], anew: Collection[str]
) -> dict[str | None, RunConditions]:
    """The conditions of trials so far, by the code that is under test: they must not change within each."""
    code = {arm.name: arm.settings.training.code for arm in study.arms}
    by_code = {one: [result for result in results if code[result.arm] == one] for one in code.values()}
    return {one: RunConditions(of_one, anew) for one, of_one in by_code.items()}


def changed_code(study: Study, results: Iterable[TrialResult]) -> str:
    """Say how the user's own code differs from what a study's trials have run, if it does."""
    forget()
    earlier = _EarlierCode()
    for result in results:
        earlier.add(result.arm, result.seed, result.machine.code)
    arms = [arm for arm in study.arms if arm.settings.training.code is None]  # others are known by their code
    found = (line for arm in arms for line in earlier.differences(arm.name, code_of(arm.settings.entries)))
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


def _either(values: Iterable[str]) -> str:
    return " or ".join(sorted(values))
