"""Weights & Biases: a project, in it a group for each study and a run for each trial."""

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fairtrial.errors import FairtrialError
from fairtrial.importers.tracked import SUMMARY
from fairtrial.spec import Study
from fairtrial.text import one_line
from fairtrial.trackers.base import DETAIL, EXIT_SECONDS, OUTCOME, TRIAL, Backend, Tracker, require, settings
from fairtrial.trial import EpochRecord, Outcome, Trial

if TYPE_CHECKING:
    import wandb

#: Seconds to wait for the server where a run begins (W&B's own are 90), and to find out whether there is one.
_INIT_SECONDS, _PROBE_SECONDS = 8.0, 3.0
_LONGEST = 120
_LONGEST_DETAIL = 5000


class WandbTracker(Tracker):
    """Logs to Weights & Biases, in ``online`` or ``offline`` mode as W&B is set up (``wandb offline``, WANDB_MODE).

    A study is a group, a trial is a run; its identifier comes from the trial's hash, so a resumed trial continues its
    run. If the server does not answer, the runs are kept in the folder ``wandb``, for ``wandb sync``.

    Args:
        project: the project; by default the name of the study.
        say: called with each message for the user; by default it is printed on standard error.

    Raises:
        FairtrialError: W&B is not installed, or has no key, or refuses the project's name.

    Example:
        >>> ft.run(ft.load("quick"), callbacks=[ft.WandbTracker("optimizers")])  # doctest: +SKIP
    """

    def __init__(self, project: str | None = None, say: Callable[[str], None] | None = None) -> None:
        require("wandb", "wandb", "--wandb")
        if project and (re.search(r"[/\\#?%:]", project) or len(project) > _LONGEST or not project.isprintable()):
            shown = one_line(project)[:_LONGEST]
            limits = rf"a project's name has at most {_LONGEST} characters, and none of / \ # ? % :"
            raise FairtrialError(f"--wandb {shown}: {limits}")
        import wandb  # noqa: PLC0415  (an extra, and slow to load)

        mode = wandb.setup(wandb.Settings(silent=True)).settings.mode
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise FairtrialError(
                "--wandb: W&B has no key: run `wandb login`, set WANDB_API_KEY, or log to this machine with "
                "WANDB_MODE=offline"
            )
        super().__init__(_Backend(project or "", mode), say)


class _Backend(Backend):
    def __init__(self, project: str, mode: Any) -> None:
        super().__init__("W&B")
        self._project, self._mode = project, mode
        self._is_checked = False  # whether the server answers
        self._runs: dict[str, wandb.Run] = {}
        self._steps: dict[str, int] = {}  # the last one of each run

    def begin(self, study: Study, trial: Trial) -> None:
        """Begin a run, or continue it."""
        if trial.hash not in self._runs:
            config = {"arm": trial.arm, "seed": trial.seed, **settings(trial), TRIAL: trial.hash}
            name = f"{one_line(trial.arm)[:_LONGEST]} seed {trial.seed}"
            run = self._start(study, id=trial.hash[:32], name=name, job_type="trial", config=config)
            self._runs[trial.hash], self._steps[trial.hash] = run, run.starting_step - 1

    def log(self, trial: Trial, record: EpochRecord) -> None:
        """Log an epoch at the step of its number, unless the run has that step: W&B's histories only grow."""
        if record.epoch > self._steps[trial.hash]:
            self._runs[trial.hash].log(dict(record.metrics), step=record.epoch)
            self._steps[trial.hash] = record.epoch

    def end(self, trial: Trial, outcome: Outcome | None, detail: str) -> None:
        """End a run; one of a trial that was interrupted counts as preempted."""
        run = self._runs.pop(trial.hash)
        del self._steps[trial.hash]
        run.summary[OUTCOME] = str(outcome or "interrupted")
        if detail:
            run.summary[DETAIL] = detail[:_LONGEST_DETAIL]
        if outcome is None:
            run.mark_preempting()
        run.finish(exit_code=0 if outcome is Outcome.FINISHED else 1)

    def conclude(self, study: Study, verdicts: Sequence[str]) -> None:
        """Write the verdicts into the summary of a run of its own."""
        identity = hashlib.sha256(f"verdicts of {study.hash}".encode()).hexdigest()[:32]
        run = self._start(study, id=identity, name="verdicts", job_type=SUMMARY, config={"study": study.label})
        run.summary["verdicts"] = "\n".join(verdicts)
        run.finish(exit_code=0)

    def _start(self, study: Study, **run: Any) -> "wandb.Run":
        import wandb  # noqa: PLC0415  (an extra)

        quiet = {"silent": True, "console": "off", "disable_git": True, "save_code": False, "x_disable_stats": True}
        options: dict[str, Any] = {
            "project": self._project or re.sub(r"[^\w.-]+", "-", study.name, flags=re.ASCII)[:_LONGEST],
            "group": one_line(study.label)[:_LONGEST],
            "resume": "allow",
            "reinit": "create_new",  # beside those of trials that run now
            "settings": wandb.Settings(**quiet, init_timeout=_INIT_SECONDS, finish_timeout=EXIT_SECONDS),
            **run,
        }
        if self._mode == "online" and not self._is_checked:
            self._is_checked = True
            if not _answers(wandb.setup().settings.base_url):
                self._keep_here()
        try:
            return wandb.init(mode=self._mode, **options)
        except wandb.errors.CommError:
            if self._mode == "offline":
                raise
            self._keep_here()  # under another name, for W&B still holds this one
            return wandb.init(mode=self._mode, **options | {"id": f"{options['id']}-kept"})

    def _keep_here(self) -> None:
        self._mode = "offline"
        self.notes.append("W&B does not answer; runs are kept in the folder wandb, for `wandb sync`")


def _answers(url: str) -> bool:
    """Tell whether a server answers, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS):  # noqa: S310  (the user's own W&B)
            return True
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return True
    except (OSError, ValueError):
        return False
