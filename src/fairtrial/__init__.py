"""Give every optimizer setting a fair trial.

fairtrial runs controlled comparisons of training settings, and says which differences are real, which are nothing, and
which are not decided yet.

>>> import fairtrial
>>> study = fairtrial.load("quick")
>>> [arm.name for arm in study.arms]
['baseline', 'high_beta1', 'low_beta2', 'large_eps', 'very_high_smoothing']
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairtrial.callbacks import Callback
    from fairtrial.errors import Diverged, FairtrialError
    from fairtrial.executors.inline import InlineExecutor
    from fairtrial.executors.local.executor import LocalExecutor
    from fairtrial.executors.ray.executor import RayExecutor
    from fairtrial.loading import load
    from fairtrial.report.views import View
    from fairtrial.runner import run_study
    from fairtrial.spec import (
        Arm,
        DataSettings,
        DataSize,
        ModelSettings,
        OptimizerSettings,
        ScheduleSettings,
        Study,
    )
    from fairtrial.stats.claims import StudyClaims, check_claims
    from fairtrial.stats.comparison import StudyVerdict, compare
    from fairtrial.stats.judge import judge
    from fairtrial.stats.summary import summarize
    from fairtrial.stats.verdicts import Comparison, Verdict
    from fairtrial.store.sql import SQLStore
    from fairtrial.training.fingerprints import fingerprint
    from fairtrial.trial import EpochRecord, Machine, Outcome, Trial, TrialContext, TrialResult, digest_results

__version__ = "0.1.0"

# Names are loaded when they are first used, so that `import fairtrial` costs nothing.
_HOMES = {
    "Arm": "spec",
    "Comparison": "stats.verdicts",
    "DataSettings": "spec",
    "DataSize": "spec",
    "Diverged": "errors",
    "EpochRecord": "trial",
    "FairtrialError": "errors",
    "InlineExecutor": "executors.inline",
    "LocalExecutor": "executors.local.executor",
    "Machine": "trial",
    "ModelSettings": "spec",
    "OptimizerSettings": "spec",
    "Outcome": "trial",
    "RayExecutor": "executors.ray.executor",
    "SQLStore": "store.sql",
    "ScheduleSettings": "spec",
    "Study": "spec",
    "StudyClaims": "stats.claims",
    "StudyVerdict": "stats.comparison",
    "Trial": "trial",
    "TrialContext": "trial",
    "TrialResult": "trial",
    "Verdict": "stats.verdicts",
    "View": "report.views",
    "Callback": "callbacks",
    "check_claims": "stats.claims",
    "compare": "stats.comparison",
    "digest_results": "trial",
    "fingerprint": "training.fingerprints",
    "judge": "stats.judge",
    "load": "loading",
    "run_study": "runner",
    "summarize": "stats.summary",
}

__all__ = [
    "Arm",
    "Callback",
    "Comparison",
    "DataSettings",
    "DataSize",
    "Diverged",
    "EpochRecord",
    "FairtrialError",
    "InlineExecutor",
    "LocalExecutor",
    "Machine",
    "ModelSettings",
    "OptimizerSettings",
    "Outcome",
    "RayExecutor",
    "SQLStore",
    "ScheduleSettings",
    "Study",
    "StudyClaims",
    "StudyVerdict",
    "Trial",
    "TrialContext",
    "TrialResult",
    "Verdict",
    "View",
    "check_claims",
    "compare",
    "digest_results",
    "fingerprint",
    "judge",
    "load",
    "run_study",
    "summarize",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fairtrial' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fairtrial.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
