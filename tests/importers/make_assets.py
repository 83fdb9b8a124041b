"""Write `assets/`: small files, packed, made by the libraries that are too heavy for every test run.

    python tests/importers/make_assets.py mlflow wandb tensorboard keras lightning transformers

Each is written by the real library, with the numbers of `tracked_runs.py`; `assets/versions.json` notes its version.
Tests read them without the library.
"""

import contextlib
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import warnings
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tracked_runs import EPOCHS, LEARNING_RATE, OPTIMIZERS, runs, test_acc, train_loss

ASSETS = Path(__file__).parent / "assets"


def main():
    """Write the assets of the libraries that are named."""
    versions_file = ASSETS / "versions.json"
    versions = json.loads(versions_file.read_text()) if versions_file.exists() else {}
    for name in sys.argv[1:]:
        make, *packages = MAKERS[name]
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            pack(Path(folder), ASSETS / f"{name}.zip")
        versions |= {package: importlib.metadata.version(package) for package in packages}
    versions_file.write_text(json.dumps(dict(sorted(versions.items())), indent=2) + "\n")


def pack(folder, archive):
    """Pack a folder, without what tells of this machine."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in files:
            assert str(ASSETS.parents[2]).encode() not in path.read_bytes(), path
            packed.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes(), zipfile.ZIP_DEFLATED)


def settings_of(optimizer, seed):
    return {"optimizer": optimizer, "seed": seed, "lr": LEARNING_RATE[optimizer]}


def make_mlflow(folder):
    """A folder and a database; in both also a failed run, a deleted one, nested ones, and a metric logged twice."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    for uri in (f"file://{folder}/mlruns", f"sqlite:///{folder}/mlflow.db"):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        mlflow.create_experiment("optimizers", artifact_location="mlflow-artifacts:/1")
        mlflow.set_experiment("optimizers")
        with mlflow.start_run(run_name="sweep"):
            for optimizer, seed in runs():
                with mlflow.start_run(run_name=f"{optimizer}-{seed}", nested=True):
                    log_to_mlflow(mlflow, optimizer, seed)
        with mlflow.start_run(run_name="deleted") as run:
            log_to_mlflow(mlflow, "adam", 7)
        mlflow.delete_run(run.info.run_id)
        with contextlib.suppress(ZeroDivisionError), mlflow.start_run(run_name="failed"):
            mlflow.log_params(settings_of("adam", 8))
            _ = 1 / 0
    record_server(folder)
    shrink(folder / "mlflow.db")
    for path in folder.glob("mlruns/*/*/tags/mlflow.*"):
        if path.name.startswith(("mlflow.source", "mlflow.user")):
            path.unlink()


def record_server(folder):
    """Start the real server, and write down what it answers; it needs Flask beside mlflow-skinny."""
    import mlflow

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], cwd=folder)
    answers = {}

    def ask(path, body=None, **query):
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            answer = json.loads(response.read())
        answers[" ".join([path, *query.values()])] = answer
        return answer

    try:
        while server.poll() is None:
            with contextlib.suppress(OSError):
                ask("experiments/search", {"max_results": 1000})
                break
            time.sleep(0.5)
        experiment = mlflow.get_experiment_by_name("optimizers").experiment_id
        for run in ask("runs/search", {"experiment_ids": [experiment], "run_view_type": "ALL"})["runs"]:
            run["data"]["tags"] = [tag for tag in run["data"].get("tags", ()) if "source" not in tag["key"]]
            for metric in run["data"].get("metrics", ()):
                ask("metrics/get-history", run_id=run["info"]["run_id"], metric_key=metric["key"])
    finally:
        server.terminate()
        server.wait()
    (folder / "server.json").write_text(json.dumps(answers))


def log_to_mlflow(mlflow, optimizer, seed):
    mlflow.log_params(settings_of(optimizer, seed))
    for epoch in EPOCHS:
        mlflow.log_metric("train/loss", train_loss(optimizer, seed, epoch), step=epoch)
        mlflow.log_metric("test_acc", 0.1, step=epoch, timestamp=1000)  # an earlier value of the same step
        mlflow.log_metric("test_acc", test_acc(optimizer, seed, epoch), step=epoch, timestamp=2000)


def shrink(database):
    """Leave out the tables that are empty, and the free pages."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            if not connection.execute(f'select count(*) from "{table}"').fetchone()[0]:
                connection.execute(f'drop table "{table}"')
        connection.execute("delete from tags where key like 'mlflow.source%' or key = 'mlflow.user'")
        connection.commit()
        connection.execute("vacuum")
    connection.close()


def make_wandb(folder):
    """Offline runs: one failed, one that was cut off, one that was resumed in a second folder."""
    import wandb

    settings = wandb.Settings(
        mode="offline", console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True, save_code=False
    )

    def start(optimizer, seed, **others):
        return wandb.init(
            project="optimizers", group=optimizer, name=f"{optimizer}-{seed}", id=f"{optimizer}{seed}", dir=folder,
            config={**settings_of(optimizer, seed), "model": {"layers": 2}}, settings=settings, **others,
        )  # fmt: skip

    def log(run, optimizer, seed, epochs):
        for epoch in epochs:
            accuracy, loss = test_acc(optimizer, seed, epoch), train_loss(optimizer, seed, epoch)
            run.log({"test_acc": accuracy, "train": {"loss": loss}, "epoch": epoch}, step=epoch)

    for optimizer, seed in runs():
        run = start(optimizer, seed)
        if (optimizer, seed) == ("sgd", 0):
            log(run, optimizer, seed, EPOCHS[:2])
            run.finish(exit_code=1)
            run = start(optimizer, seed, resume="allow")
            log(run, optimizer, seed, EPOCHS[1:])
        else:
            log(run, optimizer, seed, EPOCHS)
        run.finish()
    run = start("adam", 8)
    log(run, "adam", 8, EPOCHS[:1])
    run.finish(exit_code=1)
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".wandb":
            path.unlink()


def make_tensorboard(folder):
    """Runs of torch's writer, with and without its table of hyperparameters, and of TensorFlow's kind of scalars."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.scalar.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util import tensor_util
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for optimizer, seed in runs():
        with SummaryWriter(folder / "torch" / f"{optimizer}-{seed}") as writer:
            for epoch in EPOCHS:
                writer.add_scalar("test_acc", test_acc(optimizer, seed, epoch), epoch)
                writer.add_scalar("train/loss", train_loss(optimizer, seed, epoch), epoch)
            writer.add_histogram("weights", torch_range(), 0)
            writer.add_hparams(settings_of(optimizer, seed), {"hparam/best": 1.0})
        with SummaryWriter(folder / "folders" / optimizer / f"seed={seed}") as writer:
            for epoch in EPOCHS:
                writer.add_scalar("test_acc", test_acc(optimizer, seed, epoch), epoch)
        # What Keras's callback leaves: scalars as tensors, in folders of their own for training and validation.
        for part, tag, value in (("train", "epoch_loss", train_loss), ("validation", "epoch_accuracy", test_acc)):
            writer = EventFileWriter(str(folder / "tensors" / f"{optimizer}-{seed}" / part))
            for epoch in EPOCHS:
                tensor = tensor_util.make_tensor_proto(value(optimizer, seed, epoch), dtype="float32")
                summary = summary_pb2.Summary()
                summary.value.add(tag=tag, tensor=tensor, metadata=create_summary_metadata("", ""))
                writer.add_event(event_pb2.Event(step=epoch, summary=summary))
            if part == "validation":
                for summary in hparams(settings_of(optimizer, seed), {}):
                    writer.add_event(event_pb2.Event(step=0, summary=summary))
            writer.close()


def torch_range():
    import torch

    return torch.arange(5.0)


def make_keras(folder):
    """Keras's callback, driven without training: one file for each run."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    class Model:
        stop_training = False

    for optimizer, seed in runs():
        logger = keras.callbacks.CSVLogger(folder / f"optimizer={optimizer},seed={seed}.csv")
        logger.set_model(Model())
        logger.on_train_begin()
        for epoch in EPOCHS:
            logs = {"loss": train_loss(optimizer, seed, epoch), "val_accuracy": test_acc(optimizer, seed, epoch)}
            logger.on_epoch_end(epoch, logs)
        logger.on_train_end()


def make_lightning(folder):
    """Lightning's logger: metrics of training and of evaluation in rows of their own, and the hyperparameters."""
    from pytorch_lightning.loggers import CSVLogger

    for optimizer, seed in runs():
        logger = CSVLogger(folder)
        logger.log_hyperparams({**settings_of(optimizer, seed), "model": {"layers": 2}})
        for epoch in EPOCHS:
            step = 10 * epoch + 9
            logger.log_metrics({"epoch": epoch, "train_loss": train_loss(optimizer, seed, epoch)}, step)
            logger.log_metrics({"epoch": epoch, "test_acc": test_acc(optimizer, seed, epoch)}, step)
        logger.save()


def make_transformers(folder):
    """Hugging Face's trainer on a model of one weight; its accuracies are then those of `tracked_runs`."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x, labels=None):
            y = self.layer(x)[:, 0]
            return {"loss": ((y - labels) ** 2).mean(), "logits": y}

    data = [{"x": torch.tensor([float(i)]), "labels": torch.tensor(float(i))} for i in range(4)]
    for optimizer, seed in runs():
        values = [{"accuracy": test_acc(optimizer, seed, epoch)} for epoch in EPOCHS]
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                scratch, num_train_epochs=len(EPOCHS), per_device_train_batch_size=2, eval_strategy="epoch",
                save_strategy="epoch", logging_strategy="epoch", seed=seed, report_to=[], use_cpu=True,
                learning_rate=LEARNING_RATE[optimizer], disable_tqdm=True,
            )  # fmt: skip
            trainer = Trainer(
                Model(), arguments, train_dataset=data, eval_dataset=data,
                compute_metrics=lambda _, values=values: values.pop(0),
            )  # fmt: skip
            trainer.train()
            for path in sorted(Path(scratch).glob("checkpoint-*/trainer_state.json"))[-2:]:
                target = folder / f"{optimizer}" / f"seed={seed}" / path.parent.name
                target.mkdir(parents=True)
                shutil.copy(path, target)


MAKERS = {
    "mlflow": (make_mlflow, "mlflow-skinny"),
    "wandb": (make_wandb, "wandb"),
    "tensorboard": (make_tensorboard, "tensorboard", "torch"),
    "keras": (make_keras, "keras"),
    "lightning": (make_lightning, "pytorch-lightning"),
    "transformers": (make_transformers, "transformers"),
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    assert set(OPTIMIZERS) == {"adam", "sgd"}
    main()
