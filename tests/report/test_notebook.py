"""What a notebook shows: a bar that is updated in place, and a study and its results, on a real kernel too."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

import fairtrial as ft
from builders import make_study
from fairtrial.callbacks import closing
from fairtrial.report import notebook
from fairtrial.report.notebook import NotebookProgress, in_notebook, progress_callbacks
from fairtrial.report.studies import study_bundle, study_grid
from fairtrial.scheduler import plan
from fairtrial.trial import EpochRecord, Outcome

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
EXAMPLE = Path(__file__).parents[2] / "examples" / "first_study.ipynb"
STUDY = """
import fairtrial as ft
study = ft.Study(
    name="shown", reference="a", seeds=3, training={"loop": "fairtrial.testing:simulate", "epochs": 2},
    arms={"a": {}, "b": {"params": {"mean": 0.7}}},
    claims=[{"id": "1", "text": "b is <b>worse</b>.", "arm": "b", "against": "a", "direction": "lower"}],
)
"""


@pytest.fixture
def shown(monkeypatch):
    """A progress display, and what it has shown."""
    monkeypatch.setattr(notebook, "SECONDS_PER_UPDATE", 0.0)
    bundles = []
    return NotebookProgress(bundles.append), bundles


def test_there_is_no_bar_outside_of_notebooks_unless_text_is_asked_for():
    assert not in_notebook()
    assert progress_callbacks(None) == progress_callbacks(False) == ()
    (text,) = progress_callbacks(True)
    text.on_close()


def test_a_run_is_shown_as_it_goes_and_ends_as_one_line(shown):
    display, bundles = shown
    study = make_study(("a", "b"), seeds=2)
    trials = plan(study)
    display.on_plan(study, trials, trials)
    display.on_trial_start(trials[0], None)
    display.on_progress(trials[0], 1, 2, {})
    display.on_epoch(trials[0], EpochRecord("a", 0, 1, {"train_acc": 0.5, "test_acc": 0.25}))
    assert "epoch 1/4, training 50.0%, test 25.0%" in bundles[-1]["text/html"]
    assert 'aria-valuenow="25"' in bundles[-1]["text/html"]
    display.on_trial_end(trials[0], Outcome.FINISHED, "")
    assert "1 of 4 trials" in bundles[-1]["text/plain"]
    assert "epoch 1/4" not in bundles[-1]["text/html"]
    display.on_close()
    assert "ended by an error" in bundles[-1]["text/plain"]


def test_an_interrupted_run_says_how_to_go_on(shown):
    display, bundles = shown
    study = make_study(("a", "b"), seeds=2)
    display.on_plan(study, plan(study), plan(study))
    with pytest.raises(KeyboardInterrupt), closing([display]):
        raise KeyboardInterrupt
    end = "interrupted; every finished epoch is in the store: run this again to resume"
    assert bundles[-1]["text/plain"] == f"{study.label}: {end}"


def test_names_and_messages_are_escaped_and_bounded(shown):
    display, bundles = shown
    study = make_study(("a", "b"), seeds=2)
    trials = plan(study)
    display.on_plan(study, trials, trials)
    for number in range(30):
        display.on_warning(None, f"<script>alert({number})</script>\x1b[2J\u202e")
    display.on_trial_end(trials[0], Outcome.FAILED, "<img src=x onerror=alert(1)>\nmore")
    page = bundles[-1]["text/html"]
    assert "<script" not in page
    assert "<img" not in page
    assert r"\u001b" in page
    assert "and 19 messages before these" in page


def test_a_run_in_python_tells_its_display(shown):
    display, bundles = shown
    study = ft.Study.from_dict(
        {
            "name": "told", "reference": "a", "seeds": 2, "arms": {"a": {}, "b": {"params": {"mean": 0.7}}},
            "training": {"loop": "fairtrial.testing:simulate", "epochs": 2},
        }
    )  # fmt: skip
    for expected in ("4 trials trained in", "nothing to train: all is in the store"):
        ft.run(study, executor=ft.InlineExecutor(), callbacks=[display])
        assert expected in bundles[-1]["text/plain"]
        assert 'aria-valuenow="100"' in bundles[-1]["text/html"]


def test_a_study_shows_its_arms_and_its_question():
    study = make_study(("a", "b"), seeds=3, evidence={"margin": 0.01})
    bundle = study._repr_mimebundle_()
    assert bundle == study_bundle(study)
    assert "<table" in bundle["text/html"]
    assert "2 arms, 3 seeds" in bundle["text/plain"]
    assert "differences within 0.01 do not matter" in bundle["text/plain"]
    assert study_grid(study).columns[0].cells == (("a *",), ("b",))


# On a real kernel


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Execute a notebook on a kernel of this interpreter, in the test's folder; return it."""
    folder = tmp_path / "jupyter" / "kernels" / "here"
    folder.mkdir(parents=True)
    own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JUPYTER_PLATFORM_DIRS": "1"}
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "here", "language": "python", "env": own})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")

    def run(book, *, errors=False):
        from nbclient import NotebookClient

        where = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(book, timeout=600, kernel_name="here", allow_errors=errors, resources=where).execute()
        return book

    return run


def cells(*sources):
    import nbformat

    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


@pytest.mark.slow
def test_everything_shows_itself_on_a_real_kernel(execute):
    shown = ["study", "runs", "runs.verdict()", "runs.claims()", "runs.table()", "runs.plot('test_accuracy')"]
    book = execute(cells(STUDY, "runs = ft.run(study, executor=ft.InlineExecutor())", *shown))
    (progress,) = book.cells[1].outputs  # updated in place
    assert progress.output_type == "display_data"
    assert "6 trials trained in" in progress.data["text/html"]
    for cell in book.cells[2:7]:
        (output,) = cell.outputs
        assert "<table" in output.data["text/html"]
        assert output.data["text/plain"]
    assert "&lt;b&gt;worse&lt;/b&gt;" in book.cells[5].outputs[0].data["text/html"]
    (chart,) = book.cells[7].outputs
    kinds = {kind.rpartition(".v")[0] or kind for kind in chart.data}
    assert kinds == {"application/vnd.vegalite", "image/png", "text/plain"}


@pytest.mark.slow
def test_an_interrupt_ends_clean_on_a_real_kernel(execute):
    slow = "import time\ndef train(trial):\n    yield {'test_acc': 0.5}\n    time.sleep(60)\n"
    Path("slow_loop.py").write_text(slow)
    setup = STUDY.replace("fairtrial.testing:simulate", "slow_loop:train")
    # SIGINT is what a notebook's stop button sends
    interrupt = (
        "import os, signal\n"
        "class Interrupt(ft.Callback):\n"
        "    def on_trial_start(self, trial, machine):\n"
        "        import threading\n"
        "        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "ft.run(study, executor=ft.InlineExecutor(), callbacks=[Interrupt()])"
    )
    book = execute(cells(setup, interrupt, "'after'"), errors=True)
    progress, error = book.cells[1].outputs
    assert "interrupted; every finished epoch is in the store" in progress.data["text/html"]
    assert error.ename == "KeyboardInterrupt"


def words(book):
    """The verdicts in words, from the cell that shows them."""
    (cell,) = [cell for cell in book.cells if cell.source == "runs.verdict()"]
    text = cell.outputs[0].data["text/plain"]
    return re.findall(r"^  (\w+)(?: is|:) (better|worse|equivalent|undecided)", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_first_study_gives_the_verdicts_that_it_shows(execute):
    import nbformat

    kept = nbformat.read(EXAMPLE, as_version=4)
    shown = words(kept)
    assert {arm for arm, _ in shown} == {"low_beta2", "slow"}
    assert all(cell.outputs for cell in kept.cells if cell.cell_type == "code" and "ft.Study(" not in cell.source)
    again = nbformat.from_dict(json.loads(json.dumps(kept)))
    assert words(execute(again)) == shown
