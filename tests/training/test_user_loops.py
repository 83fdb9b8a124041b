"""Users' training loops: found, imported again when they were rewritten, and refused before a study starts."""

import functools
import json
import sys
from pathlib import Path

import pytest
import torch

import loops
from fairtrial.api import open_results
from fairtrial.callbacks import Callback
from fairtrial.errors import ProvenanceError, StudyError
from fairtrial.executors.inline import InlineExecutor
from fairtrial.scheduler import plan
from fairtrial.spec import LoopName, Study
from fairtrial.store.sql import SQLStore
from fairtrial.training import prepare
from fairtrial.trial import Outcome, TrialContext
from workloads import run


@pytest.fixture(autouse=True)
def _beside(tmp_path, monkeypatch):
    """Let modules be found in the test's folder, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_module_that_fails_while_it_is_imported_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    Path("broken_loop.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        prepare.find("broken_loop:train")
    Path("worse_loop.py").write_text("raise RuntimeError('at import')\n")
    with pytest.raises(RuntimeError, match="at import"):
        prepare.find("worse_loop:train")


def test_a_missing_package_above_the_module_is_named():
    with pytest.raises(StudyError, match="no module named no_such beside the study or installed"):
        prepare.find("no_such.module:train")
    assert "no_such" not in sys.modules


def test_a_module_that_was_rewritten_is_imported_again_when_a_study_starts():
    Path("rewritten.py").write_text("def train(trial):\n    yield {'test_acc': 0.1}\n")
    prepare.find("rewritten:train", fresh=True)
    Path("rewritten.py").write_text("def train2(trial):\n    yield {'test_acc': 0.25}\n")
    with pytest.raises(StudyError, match="rewritten has no train2"):
        prepare.find("rewritten:train2")  # while a study runs, all its trials get the same code
    assert list(prepare.find("rewritten:train2", fresh=True)(None)) == [{"test_acc": 0.25}]
    assert list(prepare.find("rewritten:train2")(None)) == [{"test_acc": 0.25}]


def test_so_is_one_that_the_user_has_imported(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # it tells of what the module was made
    Path("imported.py").write_text("def train(trial):\n    yield {'test_acc': 0.1}\n")
    import imported

    name = LoopName.of(imported.train)
    Path("imported.py").write_text("def train(trial):\n    yield {'test_acc': 0.25}\n")
    assert list(prepare.find(name, fresh=True)(None)) == [{"test_acc": 0.25}]


def test_one_that_has_not_changed_is_not(monkeypatch):
    monkeypatch.setattr("importlib.reload", lambda module: pytest.fail("imported again"))
    Path("unchanged.py").write_text("def train(trial):\n    yield {'test_acc': 0.1}\n")
    import unchanged

    for _ in range(2):
        assert prepare.find("unchanged:train", fresh=True) is unchanged.train


def test_so_are_the_modules_that_it_imports():
    Path("level.py").write_text("LEVEL = 0.1\n")
    Path("layered.py").write_text("from level import LEVEL\ndef train(trial):\n    yield {'test_acc': LEVEL}\n")
    assert list(prepare.find("layered:train", fresh=True)(None)) == [{"test_acc": 0.1}]
    Path("level.py").write_text("LEVEL = 0.25\n")
    assert list(prepare.find("layered:train")(None)) == [{"test_acc": 0.1}]
    assert list(prepare.find("layered:train", fresh=True)(None)) == [{"test_acc": 0.25}]


@pytest.mark.parametrize("file", ["edited.py", "part.py"])
def test_a_study_is_not_continued_with_an_edited_loop(file, make_study):
    """Today's numbers and tomorrow's would be of two loops; without this, an edit was "better by 9.72 points"."""
    Path("part.py").write_text("BONUS = 0.0\n")
    loop = (
        "import part\ndef train(trial):\n    pace = trial.settings.params.get('pace', 1)\n"
        "    yield {'test_acc': 0.5 + part.BONUS + trial.seed / 100 + pace / 50}\n"
    )
    Path("edited.py").write_text(loop)
    few, more = (make_study(training={"loop": "edited:train", "epochs": 1}, seeds=seeds) for seeds in (2, 3))
    with SQLStore("fairtrial.db") as store:
        done = run(few, store=store, executor=InlineExecutor())
        assert {name for one in done.results for name in one.machine.code} == {"edited.py", "part.py"}
        Path(file).write_text(Path(file).read_text() + "# another line\n")
        with pytest.raises(ProvenanceError, match=f"began with other code: {file} has changed since seed 1: "):
            run(more, store=store, executor=InlineExecutor())
        assert len(store.results(more)) == 4
        run(more, store=store, executor=InlineExecutor(), force=True)
        verdict = open_results(more, store=store).verdict()
    line = f"Not one experiment: {file} changed between trials (seeds 0 and 1, then seed 2)."
    assert verdict.text(200).splitlines()[0] == line
    forced = f"The study was continued with other code: {file} has changed since seed 1 (2 trials)."
    assert json.loads(verdict.json())["alerts"] == [line, forced]


def test_a_complete_study_says_that_its_loop_was_edited_since(make_study):
    Path("rerun.py").write_text("def train(trial):\n    yield {'test_acc': 0.5 + trial.seed / 100}\n")
    study, warnings = make_study(training={"loop": "rerun:train", "epochs": 1}), []
    watcher = Callback()
    watcher.on_warning = lambda trial, text: warnings.append((trial, text))
    with SQLStore("fairtrial.db") as store:
        run(study, store=store, executor=InlineExecutor())
        assert run(study, store=store, executor=InlineExecutor(), watcher=watcher).trained == 0
        assert warnings == []
        Path("rerun.py").write_text("def train(trial):\n    yield {'test_acc': 0.9 + trial.seed / 100}\n")
        assert run(study, store=store, executor=InlineExecutor(), watcher=watcher).trained == 0
    changed = "these trials ran other code (rerun.py has changed since seed 1)"  # once, about the study and no trial
    assert warnings == [(None, f"{changed}; to train all again, change a parameter with it")]


def returning_nothing(trial):
    for epoch in range(trial.epochs):
        {"test_acc": epoch / 10}


def returning_a_dict(trial):
    return {"test_acc": 0.5}


@functools.wraps(returning_nothing)
def decorated(*args):
    return returning_nothing(*args)


@pytest.mark.parametrize("loop", [returning_nothing, returning_a_dict, decorated])
def test_a_loop_without_yield_is_refused_once_before_the_study_starts(loop, make_study):
    study = make_study(training={"loop": loop, "epochs": 2})
    with SQLStore("fairtrial.db") as store:
        with pytest.raises(StudyError, match=r'^training\.loop = ".*": must be a generator that yields a dict [^\n]*$'):
            run(study, store=store, executor=InlineExecutor())
        assert store.studies() == []


def returning_an_iterator(trial):
    def inner():
        return None

    return loops.good(trial)


class Callable:
    def __call__(self, trial):
        yield {"test_acc": 0.5}


@pytest.mark.parametrize(
    "loop",
    [returning_an_iterator, lambda trial: iter([{"test_acc": 0.5}]), Callable(), functools.partial(loops.good)],
    ids=["an iterator", "a lambda", "an object", "a partial"],
)
def test_in_this_process_any_callable_trains(loop, make_study):
    study = make_study(training={"loop": loop, "epochs": 2})
    with SQLStore("fairtrial.db") as store:
        done = run(study, store=store, executor=InlineExecutor())
    assert done.count(Outcome.FINISHED) == 4
    assert Study.from_toml(study.to_toml()) == study  # by its name


def test_what_only_turns_out_when_it_runs_is_said_plainly(make_study):
    study = make_study(training={"loop": lambda trial: None, "epochs": 2})
    with SQLStore("fairtrial.db") as store:
        done = run(study, store=store, executor=InlineExecutor())
    assert {result.detail.partition("\n")[0] for result in done.results} == {
        "TypeError: a training loop must be a generator that yields a dict after each epoch; it returned None"
    }


def setting_threads(trial):
    torch.set_num_threads(3)
    yield {"test_acc": 0.5}


def test_threads_that_a_loop_sets_are_its_own(make_study):
    """Else the next trial of the process would run under another number, and the study would be refused for that."""
    before = torch.get_num_threads()
    (trial, *_) = plan(make_study(training={"loop": setting_threads, "epochs": 1}))
    assert list(prepare.run(TrialContext(trial))) == [{"test_acc": 0.5}]
    assert torch.get_num_threads() == before
