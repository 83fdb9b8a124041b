"""Says what is unknown of imported runs, and what was done with them: a sentence each, which verdicts repeat."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fairtrial.importers.question import EACH_ROW
from fairtrial.importers.runs import Run, Runs
from fairtrial.spec.messages import brief
from fairtrial.spec.metrics import finite
from fairtrial.text import one_line

#: Of arms, columns and the like, so many are named.
_NAMED = 4


@dataclass(frozen=True)
class Notes:
    """Describes runs, and which of them are compared.

    Attributes:
        runs: all of them.
        by_arm: those that have ended, by arm and seed.
        shared: the seeds of every arm; none where they are not known.
        used: the runs that are compared, by arm.
        unit: of the measure, as it is declared; None for what its name implies.
    """

    runs: Runs
    by_arm: Mapping[str, Mapping[str, Run]]
    shared: Sequence[str]
    used: Mapping[str, Sequence[Run]]
    unit: str | None

    def sentences(self) -> Iterator[str]:
        """Say all of it."""
        yield from (one_line(note) for note in self.runs.question.source.notes)
        yield self._pairing()
        yield from self._rows()
        yield from self._measurements()
        yield from self._early()
        yield from self._units()
        if self.runs.differing:
            beside = " and ".join(brief(column) for column in self.runs.question.arm if column.isprintable())
            columns = [f"{brief(column)} ({_values(own)})" for column, own in self.runs.differing.items()]
            more = f" and {len(columns) - _NAMED} more columns" if columns[_NAMED:] else ""
            yield f"Beside {beside or 'the arm'}, arms differ in {', '.join(columns[:_NAMED])}{more}."
        if self.runs.unread:
            yield f"Whether arms differ in {_counted(self.runs.unread, 'further column')} was not looked at."

    def _pairing(self) -> str:
        """Say why runs are paired or not, and what that rests on."""
        if self.runs.question.seed is None:
            kind = "Runs are not paired, because no column of seeds is named"
            found = [column for column in self.runs.question.others if column.lower().rpartition(".")[2] == "seed"]
            return f"{kind}; --seed {brief(found[0])} would pair them." if found else f"{kind}."
        every = {seed for runs in self.by_arm.values() for seed in runs}
        if len(self.shared) < 2:
            number = f"{len(self.shared)} seed{'' if len(self.shared) == 1 else 's'}"
            return f"Runs are not paired, because all arms share {number if self.shared else 'no seed'}."
        by = "row" if self.runs.question.by_row else "seed"
        paired = f"Runs are paired by {by}; whether those of one {by} share initial weights and data is unknown."
        if len(every) > len(self.shared):
            alone = {brief(arm): len(runs) - len(self.shared) for arm, runs in self.by_arm.items()}
            left = [f"{_counted(number, 'run')} of {arm}" for arm, number in alone.items() if number]
            failed = sum(run.ended == "failed" for run in self.runs.runs if run.seed not in self.shared)
            more = f" and of {len(left) - _NAMED} more arms" if left[_NAMED:] else ""
            lacking = [brief(arm) for arm, runs in self.by_arm.items() if len(runs) < len(every)]
            paired += (
                f" Only {len(self.shared)} of {len(every)} seeds are those of every arm, and only these are compared. "
                f"Left out: {', '.join(left[:_NAMED])}{more} (not in {', '.join(lacking[:_NAMED])}"
                f"{', ...' if lacking[_NAMED:] else ''}; a run that failed needs a row without a value)."
            )
            paired += f" Of these, {_counted(failed, 'run')} failed, which counts for nothing here." if failed else ""
        shown = [*self.shared]
        if shown != [str(index) for index in range(len(shown))] and not self.runs.question.by_row:
            text = ", ".join(map(brief, shown[:10])) + (", ..." if shown[10:] else "")
            paired += f" Seeds 0 to {len(shown) - 1} are {text} there."
        return paired

    def _rows(self) -> Iterator[str]:
        """Say what became of rows that are not simply runs."""
        runs, question = self.runs, self.runs.question
        if question.group is not None:
            what = "" if question.group == EACH_ROW else f" ({brief(question.group)})"
            yield (
                f"{runs.rows:,} rows of {len(runs.runs):,} runs are repeated measurements{what}: the mean of a run "
                "counts, once."
            )
        if runs.repeated:
            yield f"{_counted(runs.repeated, 'row')} exactly like another one counted once."
        if runs.unnamed:
            yield f"{_counted(runs.unnamed, 'row')} without an arm left out."
        if running := sum(run.ended == "running" for run in runs.runs):
            yield f"{_counted(running, 'run')} still running left out."
        if runs.again:
            yield f"{_counted(runs.again, 'run')} failed without a value and run again, which counts in its place."
        used = [run for arm in runs.arms for run in self.used[arm]]
        if empty := sum(run.ended == "failed" and not run.values for run in used):
            yield f"{_counted(empty, 'run')} without a value of {brief(question.column)} lost, like failed ones."
        if runs.thinned:
            yield "Of so many epochs, only those that decide the measure were kept."

    def _measurements(self) -> Iterator[str]:
        """Say which column looks as if rows were repeated measurements, and not runs."""
        question = self.runs.question
        if question.group is None and question.epoch is None and (column := question.measurements) is not None:
            yield (
                f"Each row counts as a run; if {brief(column)} tells measurements of one run apart, they are no "
                f"independent runs: write --group {brief(column)}, and --seed with the column of the run's seed."
            )

    def _units(self) -> Iterator[str]:
        """Name arms whose values look like fractions where others are percent."""
        if self.unit != "percent":
            return
        largest = dict.fromkeys(self.by_arm, 0.0)
        for run in self.runs.runs:
            largest[run.arm] = max(largest[run.arm], *(abs(value) for value in run.values if finite(value)), 0.0)
        small = ", ".join([brief(arm) for arm, value in largest.items() if 0 < value <= 1][:_NAMED])
        if small and max(largest.values()) > 10:
            yield f"All values of {small} are at most 1, and others are larger than 10: are all of them in percent?"

    def _early(self) -> Iterator[str]:
        """Name arms whose runs ended at an earlier epoch than others."""
        if self.runs.question.epoch is None:
            return
        used = [run for arm in self.runs.arms for run in self.used[arm] if run.ended == "finished"]
        last = max((run.epochs[-1] for run in used), default=0.0)
        early: dict[str, list[float]] = {}
        for run in used:
            if run.epochs[-1] < last:
                early.setdefault(run.arm, []).append(run.epochs[-1])
        if early:
            spans = {
                arm: f"{min(ends):g}" + f" to {max(ends):g}" * (min(ends) < max(ends)) for arm, ends in early.items()
            }
            named = [f"{_counted(len(early[arm]), 'run')} of {brief(arm)} at {span}" for arm, span in spans.items()]
            final = "final values compare trainings of different lengths"
            why = "the best of more epochs is better by luck alone" if self.runs.question.family == "best" else final
            shown = ", ".join(named[:_NAMED]) + (", ..." if named[_NAMED:] else "")
            yield f"Not all runs end at {brief(self.runs.question.epoch)} {last:g}: {shown}; {why}."


def _values(by_arm: Mapping[str, Sequence[str]]) -> str:
    """Write what a column has in each arm: ``adam 0.001; sgd 0.1 and 0.01``."""
    parts = [
        f"{brief(arm)} {' and '.join(brief(value, 30) for value in own[:3])}{', ...' if own[3:] else ''}"
        for arm, own in by_arm.items()
    ]
    return "; ".join(parts[:_NAMED]) + ("; ..." if parts[_NAMED:] else "")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
