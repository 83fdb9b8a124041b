"""Give every training setting a fair trial.

fairtrial runs controlled comparisons of training settings and tells which differences are real, which are negligible,
and which are undecided.

>>> import fairtrial as ft
>>> study = ft.load("quick")
>>> [arm.name for arm in study.arms]
['baseline', 'high_beta1', 'low_beta2', 'large_eps', 'very_high_smoothing']
>>> runs = ft.run(study)  # doctest: +SKIP
>>> runs.verdict()  # doctest: +SKIP
"""

import importlib

TYPE_CHECKING = False  # as in `typing`, which `python -m fairtrial` must not look for yet; see `__main__`
if TYPE_CHECKING:
    from fairtrial.api import bench, estimate_cost, fetch_data, list_studies, load, open_results, run
    from fairtrial.bridge import reporting
    from fairtrial.callbacks import Callback
    from fairtrial.checking.findings import StudyCheck
    from fairtrial.checking.running import check
    from fairtrial.digests import digest_results
    from fairtrial.doctor import check_installation
    from fairtrial.errors import Diverged, FairtrialError
    from fairtrial.executors.auto import AutoExecutor
    from fairtrial.executors.cuda.executor import CudaExecutor
    from fairtrial.executors.inline import InlineExecutor
    from fairtrial.executors.local.executor import LocalExecutor
    from fairtrial.executors.ray.executor import RayExecutor
    from fairtrial.judging import extend_study, import_runs, judge_runs
    from fairtrial.maintenance import merge_stores
    from fairtrial.report.views import View
    from fairtrial.results import StudyResults
    from fairtrial.spec import (
        DataSettings,
        DataSize,
        Measure,
        ModelSettings,
        OptimizerSettings,
        ScheduleSettings,
        Study,
    )
    from fairtrial.stats.comparison import compare
    from fairtrial.stats.judge import judge
    from fairtrial.stats.unpaired import judge_unpaired
    from fairtrial.stats.verdicts import Comparison, Verdict
    from fairtrial.store.sql import SQLStore
    from fairtrial.tasks import TaskResults, load_tasks, open_tasks
    from fairtrial.trackers.mlflow import MLflowTracker
    from fairtrial.trackers.tensorboard import TensorBoardTracker
    from fairtrial.trackers.wandb import WandbTracker
    from fairtrial.training.fingerprints import fingerprint
    from fairtrial.trial import EpochRecord, Machine, Outcome, Snapshot, Trial, TrialContext, TrialResult

__version__ = "0.1.0"

__all__ = [
    "AutoExecutor",
    "Callback",
    "Comparison",
    "CudaExecutor",
    "DataSettings",
    "DataSize",
    "Diverged",
    "EpochRecord",
    "FairtrialError",
    "InlineExecutor",
    "LocalExecutor",
    "MLflowTracker",
    "Machine",
    "Measure",
    "ModelSettings",
    "OptimizerSettings",
    "Outcome",
    "RayExecutor",
    "SQLStore",
    "ScheduleSettings",
    "Snapshot",
    "Study",
    "StudyCheck",
    "StudyResults",
    "TaskResults",
    "TensorBoardTracker",
    "Trial",
    "TrialContext",
    "TrialResult",
    "Verdict",
    "View",
    "WandbTracker",
    "bench",
    "check",
    "check_installation",
    "compare",
    "digest_results",
    "estimate_cost",
    "extend_study",
    "fetch_data",
    "fingerprint",
    "import_runs",
    "judge",
    "judge_runs",
    "judge_unpaired",
    "list_studies",
    "load",
    "load_tasks",
    "merge_stores",
    "open_results",
    "open_tasks",
    "reporting",
    "run",
]

#: The module of each name; it is imported when the name is first used, so that `import fairtrial` costs nothing.
_MODULES = {
    "api": ("bench", "estimate_cost", "fetch_data", "list_studies", "load", "open_results", "run"),
    "bridge": ("reporting",),
    "callbacks": ("Callback",),
    "checking.findings": ("StudyCheck",),
    "checking.running": ("check",),
    "digests": ("digest_results",),
    "doctor": ("check_installation",),
    "errors": ("Diverged", "FairtrialError"),
    "executors.inline": ("InlineExecutor",),
    "executors.auto": ("AutoExecutor",),
    "executors.cuda.executor": ("CudaExecutor",),
    "executors.local.executor": ("LocalExecutor",),
    "executors.ray.executor": ("RayExecutor",),
    "judging": ("extend_study", "import_runs", "judge_runs"),
    "maintenance": ("merge_stores",),
    "report.views": ("View",),
    "results": ("StudyResults",),
    "spec": (
        "DataSettings",
        "DataSize",
        "Measure",
        "ModelSettings",
        "OptimizerSettings",
        "ScheduleSettings",
        "Study",
    ),
    "stats.comparison": ("compare",),
    "stats.judge": ("judge",),
    "stats.unpaired": ("judge_unpaired",),
    "stats.verdicts": ("Comparison", "Verdict"),
    "store.sql": ("SQLStore",),
    "tasks": ("TaskResults", "load_tasks", "open_tasks"),
    "trackers.mlflow": ("MLflowTracker",),
    "trackers.tensorboard": ("TensorBoardTracker",),
    "trackers.wandb": ("WandbTracker",),
    "training.fingerprints": ("fingerprint",),
    "trial": ("EpochRecord", "Machine", "Outcome", "Snapshot", "Trial", "TrialContext", "TrialResult"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fairtrial' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fairtrial.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
