"""Whether a study goes on under the conditions under which it began. Pure."""

from collections.abc import Iterable, Mapping

from fairtrial.records import Machine, Trial, TrialResult

#: Packages another version of which can change a trial's numbers without anybody's doing.
PACKAGES = ("fairtrial", "torch")


class Conditions:
    """Under which conditions the trials of a study have run so far.

    Args:
        results: what the store knows of the study.
    """

    def __init__(self, results: Iterable[TrialResult]) -> None:
        results = list(results)
        self._shared = [_shared(result.machine) for result in results]
        self._data: dict[str, set[str]] = {}
        for result in results:
            self._data.setdefault(result.arm, set()).add(result.machine.data)

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
            before = {shared[name] for shared in self._shared if name in shared} - {now}
            found += [f"{name} {_either(before)}, now {now}"] if before else []
        before = self._data.get(trial.arm, set()) - {"", machine.data}
        if before and machine.data:
            found.append(f"data {_either({value[:12] for value in before})}, now {machine.data[:12]}")
        return tuple(found)


def _shared(machine: Machine) -> Mapping[str, str]:
    versions = {name: machine.versions[name] for name in PACKAGES if name in machine.versions}
    return {**versions, "threads": str(machine.threads)}


def _either(values: Iterable[str]) -> str:
    return " or ".join(sorted(values))
