"""MLflow's tracking server, by its REST API: https://mlflow.org/docs/latest/api_reference/rest-api.html."""

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from fairtrial.errors import RunsError
from fairtrial.importers.mlflow_stores import Experiment, StoredRun
from fairtrial.importers.tracked import MOST_RUNS, Steps, number, step_of
from fairtrial.spec.messages import brief

_TIMEOUT_SECONDS = 20
_LARGEST_ANSWER = 2**28
#: Runs and values that are asked for at once.
_RUNS_PAGE, _VALUES_PAGE, _MOST_PAGES = 1_000, 25_000, 1_000


class ServerStore:
    """A server; user and password, or a token, are in MLflow's own environment variables."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._url = f"{self.name.rstrip('/')}/api/2.0/mlflow/"
        user, password, token = (
            os.environ.get(f"MLFLOW_TRACKING_{what}", "") for what in ("USERNAME", "PASSWORD", "TOKEN")
        )
        if parts.username:
            user, password = (urllib.parse.unquote(text or "") for text in (parts.username, parts.password))
        self._authorization = f"Bearer {token}" if token else ""
        if user:
            self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def experiments(self) -> list[Experiment]:
        """Those that were not deleted."""
        pages = self._pages("experiments/search", {"max_results": _RUNS_PAGE, "view_type": "ACTIVE_ONLY"})
        with self._understood():
            return [
                Experiment(str(one["experiment_id"]), str(one["name"]))
                for page in pages
                for one in page.get("experiments", ())
            ]

    def has_runs(self, experiment: Experiment) -> bool:
        """Whether it has any that were not deleted."""
        asked = {"experiment_ids": [experiment.id], "max_results": 1, "run_view_type": "ACTIVE_ONLY"}
        return bool(self._ask("runs/search", asked).get("runs"))

    def runs(self, experiment: Experiment) -> list[StoredRun]:
        """All runs, by the time of their start."""
        asked = {
            "experiment_ids": [experiment.id],
            "max_results": _RUNS_PAGE,
            "run_view_type": "ALL",
            "order_by": ["attributes.start_time ASC"],
        }
        found: list[StoredRun] = []
        with self._understood():
            for page in self._pages("runs/search", asked):
                found += [_run(one) for one in page.get("runs", ())]
                if len(found) > MOST_RUNS:
                    break
        return found

    def repeated(self, experiment: Experiment) -> set[str]:  # noqa: ARG002
        """A server would have to send every value to know."""
        return set()

    def read(self, run: StoredRun, metrics: Collection[str]) -> Steps:
        """Values by step and metric."""
        steps: dict[int, dict[str, float]] = {}
        for metric in metrics:
            if metric not in run.metrics:
                continue
            asked = {"run_id": run.id, "metric_key": metric, "max_results": str(_VALUES_PAGE)}
            with self._understood():
                values = [
                    (number(one.get("timestamp")) or 0, step_of(one.get("step", 0)) or 0, number(one.get("value")))
                    for page in self._pages("metrics/get-history", asked, get=True)
                    for one in page.get("metrics", ())
                ]
            for _, step, value in sorted(values, key=lambda one: one[0]):
                if value is not None:
                    steps.setdefault(step, {})[metric] = value
        return steps

    def _pages(self, path: str, asked: dict[str, Any], *, get: bool = False) -> Iterator[dict[str, Any]]:
        token = ""
        for _ in range(_MOST_PAGES):
            page = self._ask(path, asked | ({"page_token": token} if token else {}), get=get)
            yield page
            before, token = token, str(page.get("next_page_token") or "")
            if not token or token == before:
                return

    def _ask(self, path: str, asked: dict[str, Any], *, get: bool = False) -> dict[str, Any]:
        query = "?" + urllib.parse.urlencode(asked) if get else ""
        body = None if get else json.dumps(asked).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path + query, body, headers)  # noqa: S310  (http or https)
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)  # for this server only
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
                answer = json.loads(response.read(_LARGEST_ANSWER))  # a longer one is no JSON
        except urllib.error.HTTPError as error:
            error.close()
            raise RunsError(f"{brief(self.name, 200)}: {_refused(error.code)}") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise RunsError(f"{brief(self.name, 200)}: does not answer: {brief(str(reason), 200)}") from error
        except (ValueError, RecursionError) as error:
            raise self._not_understood() from error
        if not isinstance(answer, dict):
            raise self._not_understood()
        return answer

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Word what an answer lacks, or has otherwise, in one line."""
        try:
            yield
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise self._not_understood() from error

    def _not_understood(self) -> RunsError:
        return RunsError(f"{brief(self.name, 200)}: does not answer as a server of MLflow does")


def _refused(code: int) -> str:
    if code in {401, 403}:
        return (
            f"refuses access (HTTP {code}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN"
        )
    if code == 404:
        return "is no tracking server of MLflow, or an older one than 1.28 (HTTP 404)"
    return f"answers with an error (HTTP {code})"


def _run(one: dict[str, Any]) -> StoredRun:
    info, data = one.get("info", {}), one.get("data", {})
    params, tags = ({str(x["key"]): str(x.get("value", "")) for x in data.get(part, ())} for part in ("params", "tags"))
    return StoredRun(
        str(info.get("run_id") or info.get("run_uuid")),
        str(info.get("run_name") or tags.get("mlflow.runName", "")),
        str(info.get("status", "")),
        info.get("lifecycle_stage") == "deleted",
        params,
        [str(metric["key"]) for metric in data.get("metrics", ())],
        tags.get("mlflow.parentRunId"),
    )
