"""MLflow: an experiment for each study, in it a run for each trial."""

import logging
import os
import posixpath
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fairtrial.errors import FairtrialError
from fairtrial.spec import Study
from fairtrial.store.url import redact_words
from fairtrial.text import one_line
from fairtrial.trackers.base import DETAIL, OUTCOME, STUDY, TRIAL, Backend, Tracker, parameters, require
from fairtrial.trial import EpochRecord, Outcome, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

#: What MLflow takes: characters of names, of values and of an experiment's note; parameters in one request.
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_NOTE, _MOST = 250, 6000, 5000, 100
#: MLflow's own would wait for minutes; each attempt here is one of many.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
#: Errors after which another attempt may work.
_TEMPORARY = frozenset({"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"})
_STATUSES = {Outcome.FINISHED: "FINISHED", Outcome.DIVERGED: "FAILED", Outcome.FAILED: "FAILED", None: "SCHEDULED"}


class MLflowTracker(Tracker):
    """Logs to MLflow: ``http://HOST:PORT``, ``sqlite:///mlflow.db`` or whatever else MLflow takes as a tracking URI.

    A study is an experiment, called like ``quick@943dd38e``; a trial is a run, which the trial's hash as a tag tells
    apart. A resumed trial continues its run. A run of a trial that was interrupted is "scheduled" until it is resumed.

    Args:
        uri: the tracking URI.
        say: called with each message for the user; by default it is printed on standard error.

    Raises:
        FairtrialError: MLflow is not installed, or refuses the URI.

    Example:
        >>> ft.run(ft.load("quick"), callbacks=[ft.MLflowTracker("http://127.0.0.1:5000")])  # doctest: +SKIP
    """

    def __init__(self, uri: str, say: Callable[[str], None] | None = None) -> None:
        require("mlflow", "mlflow", "--mlflow")
        backend = _Backend(uri)
        if not uri.startswith(("postgresql", "mysql", "mssql")):  # else MLflow waits for a server here, for minutes
            try:
                backend.client()
            except Exception as error:
                reason = redact_words(one_line(str(error).strip().partition("\n")[0]))[:300]
                raise FairtrialError(f"--mlflow {redact_words(uri)}: {reason}") from error
        super().__init__(backend, say)


class _Backend(Backend):
    def __init__(self, uri: str) -> None:
        super().__init__(f"MLflow at {redact_words(uri)}")
        self._uri = uri
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, str] = {}  # by the trial's hash
        self._logged: dict[str, dict[tuple[str, int], float]] = {}  # values by metric and step, of each run

    def client(self) -> "MlflowClient":
        """Make MLflow's client, once; that alone asks no server."""
        if self._client is None:
            for name, value in _PATIENCE.items():
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient  # noqa: PLC0415  (an extra, and slow to load)

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.ERROR)  # they tell of each table that they make
            self._client = MlflowClient(self._uri, registry_uri=self._uri)
        return self._client

    def begin(self, study: Study, trial: Trial) -> None:
        """Find the run of an earlier attempt, or make one, and log its settings."""
        client, experiment = self.client(), self._experiment(study)
        found = client.search_runs([experiment], filter_string=f"tags.`{TRIAL}` = '{trial.hash}'", max_results=1)
        if found:
            run = found[0].info.run_id
            client.update_run(run, status="RUNNING")
            self._logged[run] = self._history(found[0])
        else:
            name = f"{one_line(trial.arm)[:_LONGEST_NAME]} seed {trial.seed}"
            tags = {TRIAL: trial.hash, STUDY: study.label}
            run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
            self._logged[run] = {}
        self._runs[trial.hash] = run
        self._log_parameters(run, trial)

    def _log_parameters(self, run: str, trial: Trial) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        params = [Param(_name(key), _text(value)) for key, value in parameters(trial).items()]
        for at in range(0, len(params), _MOST):
            self.client().log_batch(run, params=params[at : at + _MOST])

    def log(self, trial: Trial, record: EpochRecord) -> None:
        """Log an epoch's metrics at the step of its number, but those that the run has."""
        from mlflow.entities import Metric  # noqa: PLC0415

        run = self._runs[trial.hash]
        known, now = self._logged[run], int(time.time() * 1000)
        values = {(_name(name), record.epoch): float(value) for name, value in record.metrics.items()}
        new = {key: value for key, value in values.items() if known.get(key) != value}
        if new:
            metrics = [Metric(name, value, now, step) for (name, step), value in new.items()]
            self.client().log_batch(run, metrics=metrics)
            known.update(new)

    def end(self, trial: Trial, outcome: Outcome | None, detail: str) -> None:
        """Set how it ended."""
        client, run = self.client(), self._runs[trial.hash]
        client.set_tag(run, OUTCOME, str(outcome or "interrupted"))
        if detail:
            client.set_tag(run, DETAIL, detail[:_LONGEST_NOTE])
        if outcome is None:
            client.update_run(run, status=_STATUSES[outcome])
        else:
            client.set_terminated(run, _STATUSES[outcome])
        self._logged.pop(run, None)
        del self._runs[trial.hash]

    def conclude(self, study: Study, verdicts: Sequence[str]) -> None:
        """Write the verdicts into the experiment's description."""
        text = "\n".join(f"- {verdict}" for verdict in verdicts)[:_LONGEST_NOTE]
        self.client().set_experiment_tag(self._experiment(study), "mlflow.note.content", text)

    def is_temporary(self, error: Exception) -> bool:
        """Whether the server did not answer, or said that it will later."""
        return isinstance(error, OSError) or getattr(error, "error_code", "") in _TEMPORARY

    def _experiment(self, study: Study) -> str:
        if study.label not in self._experiments:
            client, name = self.client(), one_line(study.label)[:_LONGEST_NAME]
            found = client.get_experiment_by_name(name)
            identity: str = found.experiment_id if found is not None else client.create_experiment(name)
            self._experiments[study.label] = identity
        return self._experiments[study.label]

    def _history(self, run: "Run") -> dict[tuple[str, int], float]:
        """What a run has already."""
        return {
            (metric.key, metric.step): metric.value
            for name in run.data.metrics
            for metric in self.client().get_metric_history(run.info.run_id, name)
        }


def _name(name: str) -> str:
    """A name of a metric or a parameter, with what MLflow does not take written as numbers.

    Example:
        >>> _name("optimizer.lr"), _name("loss[0]"), _name("../x")
        ('optimizer.lr', 'loss_5b_0_5d_', '_2e__2e__2f_x')
    """
    is_path = name == posixpath.normpath(name) and name[:1] not in "/."  # MLflow refuses others, as names of files
    others = r"[^\w/ .:-]" if is_path else r"[^\w-]"
    return re.sub(others, lambda one: f"_{ord(one[0]):x}_", name, flags=re.ASCII)[:_LONGEST_NAME]


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else repr(value))[:_LONGEST_VALUE]
