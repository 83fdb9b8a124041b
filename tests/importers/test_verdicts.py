"""What a user gets of each library's files: a verdict, beside the same numbers judged by hand with SciPy."""

import pytest
from scipy import stats

import fairtrial as ft
import tracked_runs as tracked

SOURCES = {
    "mlflow/mlruns": ("optimizer", "test_acc"),
    "mlflow/mlflow.db#optimizers": ("optimizer", "test_acc"),
    "wandb/wandb": ("optimizer", "test_acc"),
    "tensorboard/torch": ("optimizer", "test_acc"),
    "tensorboard/folders": ("folder1", "test_acc"),
    "tensorboard/tensors": ("optimizer", "validation/epoch_accuracy"),
    "lightning/lightning_logs": ("optimizer", "test_acc"),
    "keras": ("optimizer", "val_accuracy"),
    "transformers": ("folder1", "eval_accuracy"),
}


@pytest.mark.parametrize(("family", "values"), [("final", tracked.final_values), ("best", tracked.best_values)])
@pytest.mark.parametrize("source", SOURCES)
def test_a_verdict_is_that_of_scipy(asset, source, family, values):
    arm, metric = SOURCES[source]
    library, _, rest = source.partition("/")
    view = ft.judge_runs(
        f"{asset(library)}/{rest}", arm=arm, seed="seed", measure=f"{family}_{metric}", reference="adam"
    )
    (found,) = view.data.comparisons
    by_hand = stats.ttest_rel(values("sgd"), values("adam"))
    interval = by_hand.confidence_interval(0.95)
    precision = 1e-6 if library == "tensorboard" else 1e-12  # event files have single precision
    assert found.seeds == len(tracked.SEEDS)
    assert found.interval == pytest.approx((interval.low, interval.high), abs=precision)
    assert found.p_adjusted == pytest.approx(by_hand.pvalue, rel=100 * precision)
    assert found.verdict.value == "worse"
