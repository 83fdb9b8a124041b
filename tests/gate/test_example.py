"""The example of docs/gate.md does what the page says."""

import re
import sys
from pathlib import Path

import pytest

import fairtrial
from fairtrial.executors.inline import InlineExecutor
from fairtrial.gate import gate, save_baseline

PAGE = Path(__file__).parents[2] / "docs" / "gate.md"


@pytest.fixture
def loop(monkeypatch):
    """Write the page's study and loop into this test's folder; give the loop's source."""
    monkeypatch.delitem(sys.modules, "train", raising=False)
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    plain = ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]
    (study,) = [text for text in plain if "reference =" in text]
    (loop,) = [text for text in plain if "def train(trial)" in text]
    Path("digits.toml").write_text(study)
    Path("train.py").write_text(loop)
    return loop


@pytest.mark.slow
def test_the_example_in_the_docs(loop):
    study = fairtrial.load("digits.toml")
    save_baseline(study, "baseline.parquet", executor=InlineExecutor())
    options = {"not_worse_than": 0.01, "baseline": "baseline.parquet", "executor": InlineExecutor()}
    drawn = "weights = [rng.normal(size=(64, 32)) / 8, rng.normal(size=(32, 10)) / 6]"
    assert drawn in loop
    uniform = "weights = [rng.uniform(-1, 1, size=shape) / (shape[0] / 3) ** 0.5 for shape in ((64, 32), (32, 10))]"
    Path("train.py").write_text(loop.replace(drawn, uniform))
    harmless = gate(study, **options)
    assert (harmless.exit_code, harmless.verdict.seeds) == (0, 7)
    Path("train.py").write_text(loop)
    worse = gate(fairtrial.load("digits.toml", ["arms.adam.params.eps=0.1"]), **options)
    assert (worse.exit_code, worse.verdict.seeds) == (1, 3)
