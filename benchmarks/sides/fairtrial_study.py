"""One side of a comparison: the paper's arms as a fairtrial study, in a store of its own. Prints one line of JSON."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import fairtrial


def study(options: argparse.Namespace) -> fairtrial.Study:
    """Cut the study `paper` to the size of the benchmark."""
    sizes = [f"data.train={options.train}", f"data.test={options.test}", f"training.epochs={options.epochs}"]
    table = fairtrial.load("paper", [*sizes, "seeds=1", "name=benchmark"]).to_dict()
    table["arms"] = dict(list(table["arms"].items())[: options.arms])
    for questions in ("claims", "reported"):  # they are about all arms
        table.pop(questions)
    return fairtrial.Study.from_dict(table)


def main() -> None:
    """Run the study as a user would, its start-up included, and read its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=int, required=True)
    parser.add_argument("--test", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--arms", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    command = str(Path(sys.executable).with_name("fairtrial"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.toml"
        path.write_text(study(options).to_toml())
        words = [str(path), "--store", f"{folder}/fairtrial.db"]
        pool = ["--workers", str(options.workers), "--threads", str(options.threads)]
        started = time.perf_counter()
        subprocess.run([command, "run", *words, *pool], check=True, capture_output=True)
        seconds = time.perf_counter() - started
        table = subprocess.run([command, "table", *words, "--format", "json"], check=True, capture_output=True)
    arms = json.loads(table.stdout)["arms"]
    result = {
        "seconds": seconds,
        "images": len(arms) * options.epochs * options.train,
        "losses": [arm["final_train_loss"]["mean"] for arm in arms],
        "versions": {"fairtrial": version("fairtrial"), "torch": version("torch")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
