"""A study continues only under the conditions under which it began, unless forced, which is recorded."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import loops
from builders import MACHINE, make_results
from builders import make_study as made_up
from fairtrial.errors import ProvenanceError
from fairtrial.loading import load
from fairtrial.provenance import RunConditions, git_commit
from fairtrial.scheduler import plan
from fairtrial.stats.comparison import compare
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Outcome
from workloads import inline as inline_executor
from workloads import run

CODE = {"my_loop.py": "a" * 64, "helper.py": "b" * 64, "timm": "1.0.3"}
COMPILED = "compiled kernels (g++ 12.2.0, AVX-512)"
BEFORE = replace(
    MACHINE,
    versions={"fairtrial": "0.1", "torch": "2.12.0", "numpy": "2.0"},
    processor="AMD EPYC",
    layers=COMPILED,
    data="d" * 64,
    weights="f" * 64,
    code=CODE,
)

DIFFERENCES = {
    "torch": ({"versions": BEFORE.versions | {"torch": "2.13.0"}}, "torch 2.12.0, now 2.13.0"),
    "fairtrial": ({"versions": BEFORE.versions | {"fairtrial": "0.2"}}, "fairtrial 0.1, now 0.2"),
    "threads": ({"threads": 2}, "threads 1, now 2"),
    "the processor": ({"processor": "Intel Xeon"}, "processor AMD EPYC, now Intel Xeon"),
    "an accelerator": ({"device": "NVIDIA H100"}, "processor AMD EPYC, now NVIDIA H100"),
    "torch's layers": (
        {"layers": "plain: switched off by FAIRTRIAL_KERNELS"},
        f"layers {COMPILED}, now plain: switched off by FAIRTRIAL_KERNELS",
    ),
    "another compiler": (
        {"layers": COMPILED.replace("12", "13")},
        f"layers {COMPILED}, now {COMPILED.replace('12', '13')}",
    ),
    "data": ({"data": "e" * 64}, "data dddddddddddd, now eeeeeeeeeeee"),
    "weights": ({"weights": "e" * 64}, "weights ffffffffffff, now eeeeeeeeeeee"),
    "code": ({"code": CODE | {"my_loop.py": "c" * 64}}, "other code: my_loop.py has changed since seed 0"),
    "a package": ({"code": CODE | {"timm": "1.0.4"}}, "other code: timm has changed from 1.0.3 to 1.0.4 since seed 0"),
    "two": ({"threads": 2, "data": "e" * 64}, "threads 1, now 2; data dddddddddddd, now eeeeeeeeeeee"),
}
HARMLESS = {
    "nothing": {},
    "processor and layers are not known": {"processor": "", "layers": ""},
    "another NumPy": {"versions": BEFORE.versions | {"numpy": "2.4"}},
    "torch is not known": {"versions": {"fairtrial": "0.1"}},
    "data are not known": {"data": ""},
    "weights are not known": {"weights": ""},
    "code is not known": {"code": {}},
    "another commit": {"git_commit": "abc"},
}


@pytest.fixture
def store():
    with SQLStore("fairtrial.db") as opened:
        yield opened


def executor(machine):
    return inline_executor(loops.good, lambda trial: machine)


def begin(study, store):
    """Run a study's first trial to its end and interrupt the second within its second epoch."""
    trained = []

    def interrupting(trial):
        for epoch, metrics in enumerate(loops.good(trial), start=1):
            if epoch == 2 and trial.trial == plan(study)[1]:
                raise KeyboardInterrupt
            trained.append(trial)
            yield metrics

    with pytest.raises(KeyboardInterrupt):
        run(study, store=store, executor=inline_executor(interrupting, lambda trial: BEFORE))
    assert [(r.outcome, len(r.epochs)) for r in store.results(study)] == [(Outcome.FINISHED, 3), (None, 1)]


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_other_conditions_are_refused_with_the_difference_and_nothing_is_lost(kind, store, make_study):
    change, difference = DIFFERENCES[kind]
    study = make_study(arms={"a": {}})
    begin(study, store)
    before = store.results(study)
    with pytest.raises(ProvenanceError) as caught:
        run(study, store=store, executor=executor(replace(BEFORE, **change)))
    assert str(caught.value).startswith(f"{study.label} began with {difference}: mixing them can change its numbers; ")
    assert "\n" not in str(caught.value)
    assert store.results(study) == before
    done = run(study, store=store, executor=executor(BEFORE))  # as before, it continues
    assert [result.outcome for result in done.results] == [Outcome.FINISHED] * 2
    assert done.results[0] == before[0]
    assert all(result.forced == "" for result in done.results)


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_by_force_it_continues_and_the_verdicts_say_so(kind, store, make_study):
    change, difference = DIFFERENCES[kind]
    study = make_study()
    begin(study, store)
    done = run(study, store=store, executor=executor(replace(BEFORE, **change)), force=True)
    assert [result.outcome for result in done.results] == [Outcome.FINISHED] * 4
    assert [result.forced for result in done.results] == ["", difference, difference, difference]
    under = "with" if difference.startswith("other code: ") else "under other conditions:"
    line = f"The study was continued {under} {difference} (3 trials)."
    assert line in compare(study, done.results).alerts


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_changes_no_numbers_or_is_not_known_is_no_reason(kind, store, make_study):
    study = make_study()
    begin(study, store)
    done = run(study, store=store, executor=executor(replace(BEFORE, **HARMLESS[kind])))
    assert [result.outcome for result in done.results] == [Outcome.FINISHED] * 4
    assert not any(result.forced for result in done.results)
    assert "other conditions" not in " ".join(compare(study, done.results).alerts)


def test_nodes_that_differ_within_one_run_are_refused_too(store, make_study):
    machines = iter([BEFORE, replace(BEFORE, versions=BEFORE.versions | {"torch": "2.13.0"})])
    with pytest.raises(ProvenanceError, match=r"began with torch 2\.12\.0, now 2\.13\.0: "):
        run(make_study(), store=store, executor=inline_executor(loops.good, lambda trial: next(machines)))
    (first,) = store.results(make_study())
    assert first.outcome is Outcome.FINISHED


def test_a_study_that_was_mixed_once_stays_refused_without_force(store, make_study):
    study = make_study(arms={"a": {}})
    begin(study, store)
    run(study, store=store, executor=executor(replace(BEFORE, threads=2)), force=True)
    more = make_study(arms={"a": {}}, seeds=3)
    for threads, before in ((1, "2"), (2, "1"), (3, "1 or 2")):
        with pytest.raises(ProvenanceError, match=f"threads {before}, now {threads}:"):
            run(more, store=store, executor=executor(replace(BEFORE, threads=threads)))
    assert len(store.results(more)) == 2


def test_a_study_that_shares_nothing_with_it_has_conditions_of_its_own(store, make_study):
    begin(make_study(), store)
    other = make_study(name="other", params={"other": 1})
    done = run(other, store=store, executor=executor(replace(BEFORE, threads=7)))
    assert not any(result.forced for result in done.results)


def test_data_are_held_against_those_of_the_same_arm():
    study = made_up(("a", "b"), seeds=1)
    ours = [replace(one, machine=replace(MACHINE, data=f"{one.arm} data")) for one in make_results(study)]
    conditions = RunConditions(ours)
    a, b = plan(study)
    assert conditions.differences(a, replace(MACHINE, data="a data")) == ()
    assert conditions.differences(b, replace(MACHINE, data="b data")) == ()
    assert conditions.differences(b, replace(MACHINE, data="a data")) == ("data b data, now a data",)


def test_torchs_layers_are_the_same_whatever_the_reason_and_the_host_of_an_accelerator_does_not_count():
    trial, *_ = plan(made_up())
    conditions = RunConditions([])
    conditions.add("a", 0, replace(MACHINE, layers="plain: no compiler found", device="NVIDIA H100", processor="one"))
    other = replace(MACHINE, layers="plain: switched off", device="NVIDIA H100", processor="another")
    assert conditions.differences(trial, other) == ()


def test_code_that_arms_share_is_compared_across_arms_and_seeds():
    study = made_up(("a", "b", "c"), seeds=3)
    conditions = RunConditions([])
    conditions.add("a", 0, replace(MACHINE, code={"shared.py": "1" * 64, "a.py": "2" * 64}))
    conditions.add("b", 2, replace(MACHINE, code={"shared.py": "1" * 64}))
    _, _, c, *_ = plan(study)
    assert conditions.differences(c, replace(MACHINE, code={"shared.py": "1" * 64, "c.py": "3" * 64})) == ()
    now = replace(MACHINE, code={"shared.py": "4" * 64})
    assert conditions.differences(c, now) == ("other code: shared.py has changed since seed 2",)


def test_files_that_are_new_or_gone_are_named():
    first, other = plan(made_up(("a", "b"), seeds=1))
    conditions = RunConditions([])
    conditions.add("a", 0, replace(MACHINE, code=CODE))
    now = replace(MACHINE, code=CODE | {"more.py": "e" * 64})
    assert conditions.differences(first, now) == ("other code: more.py is new",)
    assert conditions.differences(other, now) == ()  # another arm's loop may need it
    now = replace(MACHINE, code={"my_loop.py": "c" * 64, "timm": "1.0.3"})
    (found,) = conditions.differences(first, now)
    assert found == "other code: my_loop.py has changed since seed 0, helper.py is not used any more"


@pytest.mark.parametrize(("how", "refused"), [("fails at once", False), ("fails", True), ("saves", True)])
def test_code_of_trials_that_start_anew_does_not_count(how, refused, store, make_study):
    """Who mends a loop that has failed at all its trials mixes nothing, but for what is in a checkpoint."""

    def failing(trial):
        yield from list(loops.good(trial))[:1]
        if how == "saves":
            trial.save({})
        raise RuntimeError("boom")

    training = {"epochs": 3, "loop": "loops:good", "checkpoint_seconds": 0}
    study, mended = make_study(training=training), replace(BEFORE, code=CODE | {"my_loop.py": "c" * 64})
    run(study, store=store, executor=inline_executor(failing, lambda trial: BEFORE))
    retry = {"retry_failed": how != "fails"}
    again = {"store": store, "executor": executor(mended), **retry}
    more = study if how != "fails" else make_study(seeds=3, training=training)
    if refused:
        with pytest.raises(
            ProvenanceError, match=r"began with other code: my_loop\.py has changed since seed 1: mixing"
        ):
            run(more, **again)
    else:
        assert run(more, **again).count(Outcome.FINISHED) == 4


def test_nothing_before_is_no_difference():
    (trial, *_) = plan(made_up())
    assert RunConditions([]).differences(trial, BEFORE) == ()


def test_the_commit_of_a_studys_folder(tmp_path):
    assert git_commit(tmp_path) is None

    git(tmp_path, "init")
    (tmp_path / "f").write_text("1")
    git(tmp_path, "add", "f")
    git(tmp_path, "commit", "-m", "m")
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "f").write_text("2")
    assert git_commit(tmp_path) == clean + "+"


def git(folder, *words):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def a_repository(folder):
    """Make a repository with one commit, and return its folder."""
    folder.mkdir()
    git(folder, "init")
    (folder / "f").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "m")
    return folder


def plant(folder, program):
    """Let a repository's settings and hooks name a program wherever they can, and make git look at a file again."""
    hooks = Path(git_directory(folder), "hooks")
    hooks.mkdir(exist_ok=True)
    for hook in ("post-index-change", "post-checkout", "pre-auto-gc", "reference-transaction", "fsmonitor-watchman"):
        (hooks / hook).write_text(f"#!/bin/sh\n{program}\n")
        (hooks / hook).chmod(0o755)
    settings = {
        "core.fsmonitor": program,
        "core.hooksPath": str(hooks),
        "core.pager": program,
        "pager.status": program,
        "core.sshCommand": program,
        "core.gitProxy": program,
        "core.editor": program,
        "core.askPass": program,
        "credential.helper": f"!{program}",
        "diff.external": program,
        "diff.trustExitCode": "true",
        "diff.x.command": program,
        "diff.x.textconv": program,
        "filter.x.clean": program,
        "filter.x.smudge": program,
        "filter.x.process": program,
        "filter.x.required": "true",
        "merge.x.driver": program,
        "alias.status": f"!{program}",
        "alias.rev-parse": f"!{program}",
        "status.submoduleSummary": "true",
        "remote.origin.url": f"ext::{program}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
        "gpg.program": program,
    }
    for name, value in settings.items():
        git(folder, "config", name, value)
    Path(git_directory(folder), "info").mkdir(exist_ok=True)
    Path(git_directory(folder), "info", "attributes").write_text("* filter=x diff=x merge=x\n")
    os.utime(folder / "f", (1, 1))


def git_directory(folder):
    where = ["git", "-C", str(folder), "rev-parse", "--absolute-git-dir"]
    return subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()


def test_no_program_that_a_repository_names_is_run(tmp_path):
    inner = a_repository(tmp_path / "inner")
    outer = a_repository(tmp_path / "outer")
    git(outer, "submodule", "add", str(inner), "sub")
    git(outer, "commit", "-m", "submodule")
    clean = git_commit(outer)
    plant(outer, f"touch {tmp_path}/ran")
    plant(outer / "sub", f"touch {tmp_path}/ran")
    assert git_commit(outer) == clean
    (outer / "f").write_text("2")
    (outer / "sub/f").write_text("2")
    assert git_commit(outer) == clean + "+"
    assert git_commit(outer / "sub").endswith("+")
    assert not (tmp_path / "ran").exists()
    subprocess.run(["git", "-C", str(outer), "status"], check=False, capture_output=True)
    assert (tmp_path / "ran").exists()  # the trap works


def test_a_git_beside_the_study_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "git").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho planted\n")
    (tmp_path / "git").chmod(0o755)
    repository = a_repository(tmp_path / "r")
    commit = git_commit(repository)
    for path in ("", ".", f":{os.environ['PATH']}", f".:{os.environ['PATH']}"):
        monkeypatch.setenv("PATH", path)
        assert git_commit(repository) in {commit, None}
    assert not (tmp_path / "ran").exists()


def test_variables_that_name_another_repository_do_not_count(tmp_path, monkeypatch):
    one, other = a_repository(tmp_path / "one"), a_repository(tmp_path / "other")
    (other / "f").write_text("2")
    git(other, "commit", "-a", "-m", "n")
    commit = git_commit(one)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    assert git_commit(one) == commit


def test_the_commit_of_a_worktree_and_of_a_folder_within(tmp_path):
    repository = a_repository(tmp_path / "r")
    git(repository, "worktree", "add", str(tmp_path / "w"))
    (tmp_path / "w/deep").mkdir()
    commit = git_commit(repository)
    assert git_commit(tmp_path / "w/deep") == commit
    (tmp_path / "w/f").write_text("2")
    assert (git_commit(tmp_path / "w/deep"), git_commit(repository)) == (commit + "+", commit)


STUDY = """
name = "mine"
reference = "a"
seeds = 2
[training]
epochs = 3
loop = "loops:mixed"
[params]
end = "well"
[arms.a]
[arms.b]
params.end = "interrupt"
"""


class TestAFileThatHasChanged:
    """A study whose file was changed while it was unfinished."""

    @pytest.fixture
    def run_file(self, monkeypatch, capsys):
        from fairtrial.cli import main as cli

        def command(*words):
            monkeypatch.setattr(sys, "argv", ["fairtrial", "run", *words])
            with pytest.raises(SystemExit) as end:
                cli.main()
            return end.value.code or 0, capsys.readouterr().err.splitlines()

        return command

    @pytest.fixture(autouse=True)
    def _interrupted(self, inline, run_file, monkeypatch):
        Path("mine.toml").write_text(STUDY)
        with monkeypatch.context() as patch:
            patch.setenv("FAIRTRIAL_TEST_INTERRUPT", "1")
            assert run_file("mine.toml")[0] == 130

    def test_it_is_refused_with_the_difference(self, run_file):
        Path("mine.toml").write_text(STUDY.replace("epochs = 3", "epochs = 4"))
        code, lines = run_file("mine.toml")
        assert code == 1
        assert "mine.toml has changed since mine@" in lines[-1]
        assert "training.epochs 3, now 4. To resume that study: fairtrial run mine@" in lines[-1]
        with SQLStore("fairtrial.db") as store:
            assert len(store.studies()) == 1

    def test_force_continues_and_says_so_with_every_trial(self, run_file):
        Path("mine.toml").write_text(STUDY.replace("epochs = 3", "epochs = 4"))
        assert run_file("mine.toml", "--force")[0] == 0
        with SQLStore("fairtrial.db") as store:
            results = store.results(load("mine.toml"))
        assert len(results) == 4
        assert all("training.epochs 3, now 4" in result.forced for result in results)

    def test_the_earlier_study_can_be_resumed(self, run_file):
        with SQLStore("fairtrial.db") as store:
            label = store.studies()[0].label
        Path("mine.toml").write_text(STUDY.replace("epochs = 3", "epochs = 4"))
        assert run_file(label)[0] == 0
        assert run_file("mine.toml")[0] == 0  # now nothing is left behind

    def test_more_seeds_are_no_change(self, run_file):
        Path("mine.toml").write_text(STUDY.replace("seeds = 2", "seeds = 3"))
        assert run_file("mine.toml")[0] == 0

    def test_overrides_are_another_matter(self, run_file):
        assert run_file("mine.toml", "--set", "training.epochs=4")[0] == 0
