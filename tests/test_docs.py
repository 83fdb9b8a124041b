"""What the documents show must work: studies, commands with their options, Python, links."""

import ast
import re
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer

import fairtrial
from fairtrial.checkpoints import CheckpointManager
from fairtrial.cli import main as cli
from fairtrial.errors import Stopped
from fairtrial.executors.base import EpochFinished, run_trial
from fairtrial.loading import load
from fairtrial.scheduler import plan
from fairtrial.spec import Study, override, parse_toml
from fairtrial.spec.tasks import of_task, task_names
from fairtrial.store.sql import SQLStore
from fairtrial.testing import executor
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
    table = parse_toml(text)
    for task in task_names(table) or [None]:
        assert Study.from_dict(of_task({**table, "task": task} if task else table)).arms


def commands(page):
    """The commands that a page shows, in blocks and in its sentences, each as the words behind `fairtrial`."""
    shown = re.findall(r"^(?:\$ )?fairtrial ([a-z-].*)$", "\n".join(blocks(page)), flags=re.MULTILINE)
    shown += re.findall(r"`fairtrial ([a-z-][^`]*)`", page.read_text(encoding="utf-8"))
    return [shlex.split(re.split(r" [>|] ", line)[0], comments=True) for line in shown]


COMMANDS = sorted({shlex.join(words): words for page in PAGES for words in commands(page)}.items())
GROUP = typer.main.get_command(cli.app)
#: Commands that only read what is in the store, or in the package: they take no time and change nothing.
READING = {"claims", "digest", "explain", "export", "judge", "ls", "plot", "show", "table", "verdict"}


def test_there_are_commands_to_check():
    assert {words[0] for _, words in COMMANDS} >= {*READING, "bench", "doctor", "plan", "run"}


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[line for line, _ in COMMANDS])
def test_commands_in_the_documents_are_understood(words):
    """Parse as the command line does, options and their values too, and run nothing."""
    with GROUP.make_context("fairtrial", ["ls"]) as context:
        name, command, rest = GROUP.resolve_command(context, words)
        if any(item.required for item in command.params) and all(word.startswith("-") for word in rest):
            rest = ["STUDY", *rest]  # a sentence about the command itself
        command.make_context(name, rest, parent=context).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_documents_exist(page):
    known = {
        option
        for command in GROUP.commands.values()
        for item in command.params
        for option in [*item.opts, *item.secondary_opts]
    }
    named = re.findall(r"`(--[a-z-]+)[^`]*`", page.read_text(encoding="utf-8"))
    assert {option for option in named if option not in known} == set()


MINE = """
name = "mine"
reference = "a"
seeds = 4
evidence.margin = 0.01
training = { loop = "fairtrial.testing:simulate", epochs = 3 }
[arms.a]
[arms.b]
params.mean = 0.82
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder as it is after a reader's study, `mine.toml`, and the paper's were run; what trained is simulated."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "docs" / "replication").mkdir(parents=True)  # where a command writes to
    (folder / "mine.toml").write_text(MINE)
    shutil.copytree(ROOT / "examples", folder / "examples")
    paper = override(load("paper").to_dict(), ["training.loop=fairtrial.testing:simulate", "seeds=3"])
    [tuned] = [text for page, text in STUDIES if page == "tuning.md"]
    simulated = ["training.loop=fairtrial.testing:simulate", "params.best_lr=1e-3", "tuning.trials=2"]
    (folder / "tuned.toml").write_text(Study.from_dict(override(parse_toml(tuned), simulated)).to_toml())
    with SQLStore(str(folder / "fairtrial.db")) as store:
        for study in (load(folder / "mine.toml"), Study.from_dict(paper), load(folder / "tuned.toml")):
            fairtrial.run(study, store=store, executor=executor())
    return folder


def is_runnable(words):
    """Whether a command only reads, and what it reads is there."""
    shown = words[0] in READING and "STUDY" not in words and len(words) > 1
    return shown and (words[0] != "judge" or words[1].startswith("examples/"))  # the others are readers' own runs


@pytest.mark.parametrize("words", [words for _, words in COMMANDS if is_runnable(words)], ids=shlex.join)
def test_commands_that_only_read_do_what_the_documents_show(words, recorded, monkeypatch, capfdbinary):
    monkeypatch.chdir(recorded)
    monkeypatch.setattr(sys, "argv", ["fairtrial", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capfdbinary.readouterr()
    assert (end.value.code or 0) == 0, err
    assert out or "--out" in words


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (page.name, block)
        for page in PAGES
        for block in blocks(page)
        if re.search(r"^(import|from) ", block, re.MULTILINE)
    ],
)
def test_python_in_the_documents_parses_and_names_what_there_is(page, text):
    """Names of the package that a block uses must be in its public interface."""
    public = {*fairtrial.__all__, "testing"}
    uses = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
    named = {node.attr for node in uses if isinstance(node.value, ast.Name) and node.value.id in {"fairtrial", "ft"}}
    assert named <= public


def test_the_replication_tells_what_its_records_say():
    folder = ROOT / "docs" / "replication"
    page, records = (folder / "README.md").read_text(encoding="utf-8"), pd.read_parquet(folder / "records.parquet")
    planned = records[records["seed"] < 12]  # the further three seeds are exploratory
    best = 100 * planned.groupby(["arm", "seed"])[["test_acc", "train_acc"]].max()
    table, verdicts = (page.partition(f"## {name}")[2] for name in ("Table", "Verdicts"))
    behind = best["test_acc"].unstack("arm")
    for arm, of_arm in best.groupby("arm"):
        row = next(line for line in table.splitlines() if line.strip().startswith(arm))
        test, train = (f"{of_arm[name].mean():.2f} ± {of_arm[name].std():.2f}" for name in ("test_acc", "train_acc"))
        assert f"{test} {train}" in re.sub(" +", " ", row)
        assert row.endswith(f"{len(of_arm)}/12")
        differences = (behind[arm] - behind["baseline"]).dropna()
        assert arm == "baseline" or re.search(rf"{arm} +{len(differences)} +{differences.mean():.2f} ", verdicts)
    assert f"their {len(records)} epochs" in page
    further = 100 * records.groupby(["arm", "seed"])["test_acc"].max().unstack("arm")
    for arm in ("high_beta1", "large_eps"):
        assert f"{arm}: undecided ({(further[arm] - further['baseline']).mean():.2f} points better so far" in page
    losses = (
        records[records["epoch"] == 10]
        .pivot(index="seed", columns="arm", values="train_loss")
        .dropna(subset="low_beta2")
    )
    assert len(losses) == 11  # "at all of its 11 seeds its training loss after ten epochs is below that of the others"
    assert (losses.drop(columns="very_high_smoothing").idxmin(axis="columns") == "low_beta2").all()
    mean = records.groupby(["epoch", "arm"])[["train_loss", "test_acc"]].mean().unstack("arm")
    apart = mean["train_loss"].sub(mean["train_loss"]["baseline"], axis="index").abs()
    assert (apart["high_beta1"].max() < 0.0065, apart["large_eps"].max() < 0.0095) == (True, True)
    assert set(mean["test_acc"].loc[2:].idxmax(axis="columns")) == {"low_beta2"}


def test_the_study_of_keras_s_averages_tells_what_its_records_say():
    folder = ROOT / "docs" / "replication"
    page = (folder / "README.md").read_text(encoding="utf-8").partition("## Keras's averages")[2]
    records = pd.read_parquet(folder / "keras-averages.parquet")
    shown = ["train_acc", "test_acc", "recalibrated_test_acc", "recalibrated_train_acc"]
    percent = 100 * records.set_index(["arm", "seed", "epoch"])[shown]
    for (arm, seed, _), row in percent[percent.index.get_level_values("epoch") == 10].iterrows():
        assert f"| {arm} | {seed} | " + " | ".join(f"{value:.1f}" for value in row) + " |" in page
    epochs = {name: percent[name].unstack("epoch") for name in shown}
    ahead = epochs["test_acc"].loc["low_beta2"] - epochs["test_acc"].loc["baseline"]
    assert (ahead.loc[:, 5:] > 0).all(axis=None)
    assert f"({ahead[10].mean():.2f} points better so far" in page
    assert (epochs["test_acc"].loc[:, :4].round(1) == 10).all(axis=None)
    cost = epochs["recalibrated_test_acc"] - epochs["test_acc"]
    for arm, least, most in (("baseline", 10, 41), ("low_beta2", 6, 27)):
        assert round(cost.loc[arm].loc[:, 6:].min(axis=None)) == least
        assert round(cost.loc[arm].loc[:, 6:].max(axis=None)) == most
    for name, sizes in (("test_acc", {18, 6}), ("recalibrated_test_acc", {6, 2})):
        moves = epochs[name].diff(axis="columns").loc[:, 7:].abs().groupby("arm").mean().mean(axis="columns")
        assert set(moves.round()) == sizes
    assert (epochs["recalibrated_train_acc"] - epochs["recalibrated_test_acc"]).max(axis=None).round(1) == 4.6
    falls = epochs["train_acc"].diff(axis="columns").min(axis="columns")
    assert (-falls["baseline"].max().round(), -falls["baseline"].min().round()) == (6, 15)
    assert falls["low_beta2"].min() > 0
    of_torch = pd.read_parquet(folder / "records.parquet").pivot_table("train_acc", ["arm", "seed"], "epoch")
    assert of_torch.diff(axis="columns").min(axis=None) > 0


def test_the_run_with_a_larger_map_tells_what_its_records_say():
    folder = ROOT / "docs" / "replication"
    page = (folder / "README.md").read_text(encoding="utf-8").partition("## A larger map")[2]
    records = pd.read_csv(folder / "larger-map.csv")
    for label, name in (("training", "train_acc"), ("test", "test_acc")):
        assert f"| {label} (%) | " + " | ".join(f"{100 * value:.1f}" for value in records[name]) + " |" in page


def test_the_page_of_schedules_tells_what_its_records_say():
    page = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    records = pd.read_parquet(ROOT / "docs" / "schedules.parquet")
    last = 100 * records[records["epoch"] == 10].set_index(["arm", "seed"])[["train_acc", "test_acc"]].unstack("arm")
    assert len(last) == 5
    for arm in ("step", "cosine", "onecycle", "warmup_cosine"):
        behind = (last["test_acc"]["constant"] - last["test_acc"][arm]).mean()
        assert re.search(rf"{arm}[ :].*{behind:.2f} points", page)
    fits = [f"{last['train_acc'][arm].mean():.0f}%" for arm in ("constant", "step", "onecycle", "cosine")]
    assert [at for at in map(page.find, fits) if at >= 0] == sorted(map(page.find, fits))


def test_the_sensitivity_to_betas_and_epsilon_is_that_of_its_records():
    results = fairtrial.judge_runs(
        ROOT / "docs" / "sensitivity.parquet",
        arm="arm",
        seed="seed",
        epoch="epoch",
        measure="final_recalibrated_test_acc",
        reference="default",
        margin=0.02,
    )
    verdicts = {row.arm: row.verdict.value for row in results.data.comparisons}
    worse = {arm for arm, verdict in verdicts.items() if verdict == "worse"}
    assert worse == {"eps_1e-3", "eps_0p01"}
    assert {arm for arm, verdict in verdicts.items() if verdict == "undecided"} == {"beta2_0p9"}
    assert len(verdicts) == 12
    records = pd.read_parquet(ROOT / "docs" / "sensitivity.parquet")
    for name, mean in (("test_acc", 8), ("recalibrated_test_acc", 2)):
        moves = 100 * records.pivot_table(name, ["arm", "seed"], "epoch").diff(axis="columns").abs()
        assert round(moves[5].mean()) == mean


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8"))
    assert [target for target, _ in links if not (page.parent / target).exists()] == []
    targets = [(page.parent / target if target else page, anchor) for target, anchor in links if anchor]
    assert [anchor for target, anchor in targets if anchor not in anchors(target)] == []


def anchors(page):
    """The anchors of a page's headings, as hosts of Markdown make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


@pytest.mark.parametrize(("page", "least"), [("reliability.md", 50), ("safeguards.md", 30), ("attacks.md", 50)])
def test_every_test_that_holds_a_promise_is_there(page, least):
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(named) > least
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists()
        or not re.search(rf"^ *def {name}\(", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("page", ["reliability.md", "safeguards.md", "attacks.md"])
def test_every_promise_names_a_test(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!promise|what people do|fault)(.*) \| (.*) \|$", text, re.MULTILINE)
    assert [promise for promise, holds in rows if "::test_" not in holds] == []
