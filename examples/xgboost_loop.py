"""XGBoost as a training loop, by a callback that reports each round; xgboost_loop.toml is its study."""

import xgboost
from sklearn.datasets import load_digits

import fairtrial as ft


class Report(xgboost.callback.TrainingCallback):
    """Reports the evaluation of each round."""

    def __init__(self, report):
        super().__init__()
        self.report = report

    def after_iteration(self, _model, _epoch, evals_log):
        """Report, and go on."""
        train, test = evals_log["train"], evals_log["test"]
        self.report({"train_loss": train["mlogloss"][-1], "test_acc": 1 - test["merror"][-1]})
        return False


@ft.reporting
def train(trial, report):
    """Train as always, a tree for each class in a round; a round counts as an epoch."""
    digits = load_digits()
    rows = {"train": slice(1200), "test": slice(1200, None)}
    matrices = {name: xgboost.DMatrix(digits.data[part], digits.target[part]) for name, part in rows.items()}
    settings = {
        "objective": "multi:softprob",
        "num_class": 10,
        "eval_metric": ["mlogloss", "merror"],
        "subsample": 0.8,
        "seed": trial.order_seed,  # which rows each tree sees; there are no initial weights
        "nthread": 1,  # two trials on two cores beat one on two
        **trial.settings.params,  # such as eta and max_depth
    }
    xgboost.train(
        settings,
        matrices["train"],
        num_boost_round=trial.epochs,
        evals=[(matrix, name) for name, matrix in matrices.items()],
        callbacks=[Report(report)],
        verbose_eval=False,
    )
