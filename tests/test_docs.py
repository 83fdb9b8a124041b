"""What the documents show must work: study files parse, commands exist, links lead somewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest

from fairtrial.checkpoints import CheckpointManager
from fairtrial.cli.main import app
from fairtrial.errors import Stopped
from fairtrial.executors.base import EpochFinished, run_trial
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import tensors as _tensors  # noqa: F401  (lets checkpoints hold tensors, as in every run)
from fairtrial.trial import Machine

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    """The indented code blocks of a page."""
    found = re.findall(r"(?:^(?: {4}.*)?\n)+", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in found if block.strip()]


STUDIES = [(page.name, block) for page in PAGES for block in blocks(page) if "reference =" in block]


def test_there_are_studies_to_check():
    assert len(STUDIES) >= 2


@pytest.mark.parametrize(("page", "text"), STUDIES)
def test_studies_in_the_documents_are_valid(page, text):
    assert Study.from_toml(text).arms


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_documents_exist(page):
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    used = set(
        re.findall(
            r"fairtrial (run|table|plot|export|show|ls|data|plan|bench|[a-z]+) [a-z]+\.?\w*", "\n".join(blocks(page))
        )
    )
    assert used <= known | {"import"}


def test_the_replication_tells_what_its_records_say():
    folder = ROOT / "docs" / "replication"
    page, records = (folder / "README.md").read_text(encoding="utf-8"), pd.read_parquet(folder / "records.parquet")
    assert len(records) == 5 * 3 * 10
    best = 100 * records.groupby(["arm", "seed"])[["test_acc", "train_acc"]].max()
    for arm, of_arm in best.groupby("arm"):
        row = next(line for line in page.partition("## Table")[2].splitlines() if line.strip().startswith(arm))
        test, train = (f"{of_arm[name].mean():.2f} ± {of_arm[name].std():.2f}" for name in ("test_acc", "train_acc"))
        assert f"{test} {train}" in re.sub(" +", " ", row)
    behind = best["test_acc"].unstack("arm")
    low = behind["low_beta2"] - behind["baseline"]
    assert re.search(rf"low_beta2 +3 +{low.mean():.2f} ", page)
    losses = records.groupby(["epoch", "arm"])["train_loss"].mean().unstack("arm")
    assert set(losses.idxmin(axis="columns")) == {"low_beta2"}  # "the lowest after each of the ten epochs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_loop_in_the_documents_goes_on_to_the_same_bits(make_study):
    (text,) = [block for page in PAGES for block in blocks(page) if "trial.load()" in block]
    names = {}
    exec(text, names)
    (trial, *_) = plan(make_study(training={"epochs": 4, "loop": "shown:train"}))

    def attempt(checkpoints, asked_to_stop):
        messages = []
        try:
            keep = checkpoints.open(trial, lambda: asked_to_stop)
            messages.extend(run_trial(trial, names["train"], Machine({}, "", "cpu", 1, ""), keep))
        except Stopped:
            return None
        return [message.record for message in messages if isinstance(message, EpochFinished)]

    whole = attempt(CheckpointManager("whole"), asked_to_stop=False)
    assert len({record.metrics["train_loss"] for record in whole}) == 4
    assert [attempt(CheckpointManager("broken"), asked_to_stop=True) for _ in range(3)] == [None] * 3
    resumed = attempt(CheckpointManager("broken"), asked_to_stop=False)
    assert resumed == whole


def test_every_test_that_holds_a_promise_is_there():
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))
    assert len(named) > 50
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists()
        or not re.search(rf"^ *def {name}\(", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert missing == []


def test_every_promise_names_a_test():
    rows = re.findall(r"^\| (?!promise)(.*) \| (.*) \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert [promise for promise, holds in rows if "::test_" not in holds] == []
