"""Running studies: what is trained, recorded and reported."""

import math
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from unittest.mock import patch

import pytest

import loops
from fairtrial import digest_results
from fairtrial.api import open_results
from fairtrial.callbacks import Callback
from fairtrial.errors import StudyError, TrialRestartedError
from fairtrial.executors.base import Workload
from fairtrial.executors.inline import InlineExecutor
from fairtrial.history import NOT_COUNTED
from fairtrial.spec import Origin, Study
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Outcome
from store_calls import Calls
from workloads import inline as inline_executor
from workloads import run

pytestmark = pytest.mark.usefixtures("inline")


@pytest.fixture
def store():
    with SQLStore("fairtrial.db") as opened:
        yield opened


class Log(Callback):
    """Records its calls."""

    def __init__(self):
        self.lines = []

    def on_plan(self, study, trials, missing):
        self.lines.append(("planned", len(trials), len(missing)))

    def on_trial_start(self, trial, machine):
        self.lines.append(("started", trial.arm, trial.seed))

    def on_progress(self, trial, batch, batches, metrics):
        self.lines.append(("progressed", trial.arm, batch, batches, dict(metrics)))

    def on_epoch(self, trial, record):
        self.lines.append(("epoch", record.arm, record.seed, record.epoch))

    def on_trial_end(self, trial, outcome, detail):
        self.lines.append(("ended", trial.arm, outcome))

    def on_arm_stopped(self, study, arm, seeds, reason):
        self.lines.append(("stopped", arm, seeds, reason))


def test_everything_planned_is_trained_and_recorded(store, make_study):
    study = make_study()
    done = run(study, store=store)
    assert done.trained == 4
    assert [(r.arm, r.seed, r.outcome) for r in done.results] == [
        (arm, seed, Outcome.FINISHED) for seed in (0, 1) for arm in ("a", "b")
    ]
    assert all([one.epoch for one in result.epochs] == [1, 2, 3] for result in done.results)
    last = done.results[-1].epochs[-1]
    assert last.metrics["train_acc"] == 1 - math.exp(-2 * 3 / 5) + 0.01
    assert last.metrics["grad_norm"] == 1 / 3
    assert "torch" in done.results[0].machine.versions


def test_the_commit_of_the_studys_folder_is_noted(store, make_study, tmp_path, monkeypatch):
    monkeypatch.setattr("fairtrial.runner.git_commit", lambda folder: f"commit of {folder.name}")
    done = run(make_study().with_origin(Origin(folder=tmp_path / "mine")), store=store)
    assert all(result.machine.git_commit == "commit of mine" for result in done.results)


def test_callbacks_are_called_in_order(store, make_study):
    log = Log()
    run(make_study(seeds=1, arms={"a": {}}, training={"epochs": 2, "loop": "loops:good"}), store=store, watcher=log)
    progress = ("progressed", "a", 1, 2, {"train_acc": 0.5})
    assert [line for line in log.lines if line != progress] == [
        ("planned", 1, 1),
        ("started", "a", 0),
        ("epoch", "a", 0, 1),
        ("epoch", "a", 0, 2),
        ("ended", "a", Outcome.FINISHED),
    ]
    assert log.lines.count(progress) == 2
    assert log.lines.index(("started", "a", 0)) < log.lines.index(progress)


def test_what_callbacks_report_is_in_the_store_already(store, make_study):
    study = make_study()

    class Checker(Callback):
        def on_epoch(self, trial, record):
            (result,) = [r for r in store.results(study) if r.trial == trial.hash]
            assert record in result.epochs

    run(study, store=store, watcher=Checker())


def test_a_second_run_has_nothing_to_do(store, make_study):
    study = make_study()
    first = run(study, store=store)
    second = run(study, store=store)
    assert (second.trained, second.results) == (0, first.results)


def test_more_seeds_train_only_the_new_ones(store, make_study):
    run(make_study(seeds=1), store=store)
    done = run(make_study(seeds=3), store=store)
    assert (done.trained, len(done.results)) == (4, 6)


def test_every_end_is_an_outcome_of_its_own(store, mixed_study):
    done = run(mixed_study, store=store)
    outcomes = {result.arm: (result.outcome, result.detail.strip().split("\n")[-1]) for result in done.results}
    assert outcomes == {
        "well": (Outcome.FINISHED, ""),
        "nan": (Outcome.DIVERGED, "train_loss is nan after epoch 2"),
        "inf": (Outcome.DIVERGED, "test_loss is inf after epoch 2"),
        "says_so": (Outcome.DIVERGED, "weights exploded in epoch 2"),
        "raises": (Outcome.FAILED, "RuntimeError: boom"),
        "no_record": (Outcome.FAILED, "TypeError: a training loop must yield a dict of metrics, not float"),
        "empty": (Outcome.FAILED, "ValueError: the training loop yielded an empty record in epoch 2"),
        "too_many": (Outcome.FAILED, "ValueError: the training loop yielded more than its 3 epochs"),
    }
    assert {r.arm: len(r.epochs) for r in done.results} == dict.fromkeys(outcomes, 1) | {"well": 3, "too_many": 3}
    assert (done.count(Outcome.DIVERGED), done.count(Outcome.FAILED)) == (6, 8)


def test_a_loop_that_yields_nothing_has_failed(store, make_study):
    done = run(make_study(training={"epochs": 2, "loop": "loops:nothing_at_all"}), store=store)
    assert done.count(Outcome.FAILED) == 4
    assert done.results[0].detail.rstrip().endswith("ValueError: the training loop yielded nothing")


class Warnings(Callback):
    """Notes the warnings."""

    def __init__(self):
        self.found = []

    def on_warning(self, trial, text):
        self.found.append((trial.arm, trial.seed, text))


@pytest.mark.parametrize(("key", "warns"), [("pcae", True), ("pace", False)])
def test_a_setting_that_the_first_trial_did_not_read_is_named_when_it_ends(key, warns, store, make_study):
    study, warnings = make_study(arms={"a": {}, "b": {"params": {key: 2}}}), Warnings()
    done = run(study, store=store, watcher=warnings)
    line = f"has not read params.{key}, in which arms differ: does the training loop use it?"
    assert warnings.found == ([("a", 0, line)] if warns else [])
    assert [one.reads for one in done.results] == [("params.pace",)] * 4
    more = make_study(arms={"a": {}, "b": {"params": {key: 2}}}, seeds=3)
    run(more, store=store, watcher=warnings)
    assert len(warnings.found) == warns  # once


def test_fingerprints_are_recorded(store, make_study):
    done = run(make_study(training={"epochs": 3, "loop": "loops:telling"}), store=store)
    assert [result.fingerprints for result in done.results] == [
        {"initial_weights": f"weights {seed}", "batch_order": f"order {seed}", "data": "all"} for seed in (0, 0, 1, 1)
    ]


def test_failed_trials_are_retried_only_on_demand(store, mixed_study):
    run(mixed_study, store=store)
    assert run(mixed_study, store=store).trained == 0
    again = run(mixed_study, store=store, retry_failed=True)
    assert again.trained == 8
    assert again.count(Outcome.FAILED) == 8


def test_an_interrupt_keeps_finished_epochs_and_the_next_run_resumes(store, make_study, monkeypatch):
    ends = {end: {"params": {"end": end}} for end in ("well", "interrupt", "later")}
    study = make_study(seeds=1, reference="well", training={"epochs": 3, "loop": "loops:mixed"}, arms=ends)
    monkeypatch.setenv("FAIRTRIAL_TEST_INTERRUPT", "1")
    with pytest.raises(KeyboardInterrupt):
        run(study, store=store)
    seen = {result.arm: (result.outcome, len(result.epochs)) for result in store.results(study)}
    assert seen == {"well": (Outcome.FINISHED, 3), "interrupt": (None, 1)}
    monkeypatch.delenv("FAIRTRIAL_TEST_INTERRUPT")
    done = run(study, store=store)
    assert (done.trained, done.count(Outcome.FINISHED)) == (2, 3)
    assert all(len(result.epochs) == 3 for result in done.results)


def test_interrupted_and_resumed_equals_uninterrupted(store, make_study, monkeypatch):
    study = make_study(
        seeds=1,
        reference="x",
        training={"epochs": 3, "loop": "loops:mixed"},
        arms={"x": {"params": {"end": "interrupt"}}},
    )
    with SQLStore("other.db") as other:
        whole = run(study, store=other)
    monkeypatch.setenv("FAIRTRIAL_TEST_INTERRUPT", "1")
    with pytest.raises(KeyboardInterrupt):
        run(study, store=store)
    monkeypatch.delenv("FAIRTRIAL_TEST_INTERRUPT")
    assert [r.epochs for r in run(study, store=store).results] == [r.epochs for r in whole.results]


def test_a_missing_loop_is_reported_before_anything_runs(store, make_study):
    for loop, message in {
        "loops:missing": 'training.loop = "loops:missing": loops has no missing',
        "loops:not_callable": 'training.loop = "loops:not_callable": loops has no function not_callable',
        "no_such:train": 'training.loop = "no_such:train": no module named no_such beside the study or installed',
    }.items():
        with pytest.raises(StudyError) as caught:
            run(make_study(training={"epochs": 1, "loop": loop}), store=store)
        assert str(caught.value) == message
    assert store.studies() == []


def settling(**seeds):
    """Make a rule that stops arms after these numbers of seeds, and records its calls."""
    asked = []

    def settled(study, results):
        asked.append([(result.arm, result.seed, result.outcome) for result in results])
        seen = max(result.seed for result in results) + 1
        return {arm: f"enough at {enough}" for arm, enough in seeds.items() if seen >= enough}

    return settled, asked


def three_arms(make_study, **changes):
    arms = {"a": {}, "b": {"params": {"pace": 2}}, "c": {"params": {"pace": 3}}}
    return make_study(**{"arms": arms, "seeds": {"min": 2, "max": 5}, **changes})


def trained(done):
    return sorted((result.seed, result.arm) for result in done.results)


def test_settled_arms_stop_and_the_others_continue_with_the_reference(store, make_study):
    settled, asked = settling(b=2, c=4)
    log = Log()
    done = run(three_arms(make_study), store=store, settled=settled, watcher=log)
    assert trained(done) == [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "b"), (1, "c")] + [
        (seed, arm) for seed in (2, 3) for arm in ("a", "c")
    ]
    assert done.trained == 10
    assert [max(seed for _, seed, _ in look) + 1 for look in asked] == [2, 3, 4]
    assert [line for line in log.lines if line[0] in {"planned", "stopped"}] == [
        ("planned", 15, 15),
        ("stopped", "b", 2, "enough at 2"),
        ("stopped", "c", 4, "enough at 4"),
        ("stopped", "a", 4, "no arm is left to compare with"),
    ]


def test_a_finished_sequential_study_has_nothing_to_do(store, make_study, monkeypatch):
    settled, _ = settling(b=2, c=4)
    study = three_arms(make_study)
    first = run(study, store=store, settled=settled)
    monkeypatch.setattr("fairtrial.runner.compose_workload", None)  # no workers, no torch
    log = Log()
    again = run(study, store=store, settled=settled, watcher=log)
    assert (again.trained, again.results) == (0, first.results)
    assert log.lines[0] == ("planned", 10, 0)


def test_a_sequential_study_decides_the_same_whatever_the_store_knows_already(store, make_study):
    """Another study has trained more seeds of the same trials: they must not count before their time."""
    run(three_arms(make_study, name="large", seeds=5), store=store)
    settled, asked = settling(b=2, c=4)
    done = run(three_arms(make_study), store=store, settled=settled)
    assert done.trained == 0
    assert [len(look) for look in asked] == [6, 8, 10]
    assert [key for key, look in enumerate(asked) if any(arm == "b" and seed > 1 for arm, seed, _ in look)] == []


def test_an_interrupted_sequential_study_decides_the_same(store, make_study):
    study = three_arms(make_study)

    class Impatient(Callback):
        def on_trial_end(self, trial, outcome, detail):
            raise KeyboardInterrupt

    runs = []
    for _ in range(20):
        settled, asked = settling(b=2, c=4)
        try:
            done = run(study, store=store, settled=settled, watcher=Impatient())
        except KeyboardInterrupt:
            runs.append(len(asked))
        else:
            break
    assert len(runs) == 10  # one trial each
    with SQLStore("other.db") as other:
        whole = run(study, store=other, settled=settling(b=2, c=4)[0])
    assert [(r.trial, r.epochs) for r in done.results] == [(r.trial, r.epochs) for r in whole.results]


def test_failed_trials_of_a_sequential_study_have_ended(store, make_study):
    arms = {"a": {"params": {"end": "well"}}, "b": {"params": {"end": "raises"}}}
    study = make_study(seeds={"min": 1, "max": 3}, training={"epochs": 3, "loop": "loops:mixed"}, arms=arms)
    settled, asked = settling(b=2)
    done = run(study, store=store, settled=settled)
    assert trained(done) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert asked[0] == [("a", 0, Outcome.FINISHED), ("b", 0, Outcome.FAILED)]
    again = run(study, store=store, settled=settled, retry_failed=True)
    assert (again.trained, trained(again)) == (2, trained(done))


def test_without_a_stopping_rule_all_seeds_are_trained(store, make_study):
    assert run(three_arms(make_study), store=store).trained == 15


def test_another_executor(store, make_study):
    executor = inline_executor(lambda trial: iter([{"test_acc": 0.5}]))
    done = run(make_study(), store=store, executor=executor)
    assert [dict(r.epochs[0].metrics) for r in done.results] == [{"test_acc": 0.5}] * 4


def test_leaving_early_closes_the_training_loop(store, make_study):
    closed = []

    def loop(trial):
        with ExitStack() as stack:
            stack.callback(closed.append, trial.arm)
            yield {"test_acc": 0.1}
            yield {"test_acc": 0.2}

    class Stop(Callback):
        def on_epoch(self, trial, record):
            raise KeyboardInterrupt

    executor = inline_executor(loop)
    with pytest.raises(KeyboardInterrupt):
        run(make_study(), store=store, executor=executor, watcher=Stop())
    assert closed == ["a"]


# Looks, and what was set when


def test_a_second_look_at_the_same_trials_is_known_as_one(store, make_study):
    for seeds in (2, 3, 5):
        run(make_study(seeds=seeds), store=store)
    found = store.history(make_study(seeds=5))
    (measure,) = found.own.question.measures
    assert [stage.question.looks for stage in found.looked_at(measure)] == [(2,), (3,)]


def test_a_margin_that_was_set_after_a_run_is_said_to_be(store, make_study):
    first, later = (make_study(evidence={"margin": margin}) for margin in (0.01, 0.02))
    for study in (first, later):
        run(study, store=store)
    assert open_results(first, store=store).verdict().data.set_beforehand
    found = open_results(later, store=store).verdict()
    assert found.data.exploratory == ("the margin 0.02 was set after 4 trials had ended",)
    assert found.text().startswith("Exploratory: the margin 0.02 was set after 4 trials had ended.\n")


def test_a_look_by_a_study_that_was_not_run_is_not_counted_and_says_so(store, make_study):
    run(make_study(seeds=4), store=store)
    found = open_results(make_study(seeds=3), store=store).verdict().data
    assert found.exploratory == (NOT_COUNTED, "these trials were looked at with more seeds before")


def test_a_study_that_was_interrupted_keeps_what_it_set(store, make_study):
    study = make_study(evidence={"margin": 0.01})

    class Interrupting(Callback):
        def on_trial_end(self, trial, outcome, detail):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, store=store, watcher=Interrupting())
    run(study, store=store)
    assert open_results(study, store=store).verdict().data.exploratory == ()


def test_a_study_that_another_passed_over_is_registered_again_at_its_end(store, make_study):
    first, second = make_study(seeds=2), make_study(seeds=4)

    class Meanwhile(Callback):
        def on_plan(self, study, trials, missing):
            store.add_study(second, datetime.now(UTC))

    run(first, store=store, watcher=Meanwhile())
    run(second, store=store)
    assert [store.history(study).own.number for study in (first, second)] == [3, 4]
    assert store.history(second).own.earlier == (3,)


def sharing(name, **arms):
    """Build a study of the arm `shared` and one of its own."""
    arms = {"shared": {}} | {arm: {"params": {"pace": pace}} for arm, pace in arms.items()}
    table = {"name": name, "reference": "shared", "seeds": 2, "arms": arms}
    return Study.from_dict(table | {"training": {"epochs": 3, "loop": "loops:good"}})


class Signalling(Log):
    """Sets one event when the first trial starts, and waits then for another; tells of warnings."""

    def __init__(self, started, until):
        super().__init__()
        self.started, self.until = started, until

    def on_trial_start(self, trial, machine):
        super().on_trial_start(trial, machine)
        self.started.set()
        assert self.until.wait(60)

    def on_warning(self, trial, text):
        self.lines.append(("warned", text))
        self.started.set()


@pytest.mark.parametrize("kind", ["file", "memory", "postgresql"])
def test_of_two_runs_that_share_trials_the_later_one_leaves_them_to_the_other_and_waits(request, kind):
    first, second = sharing("first", own=2), sharing("second", other=3)
    begun, waits, never = threading.Event(), threading.Event(), threading.Event()
    never.set()
    place = request.getfixturevalue("postgresql") if kind == "postgresql" else "s.db"
    with ExitStack() as opened, ThreadPoolExecutor(1) as pool:
        store = opened.enter_context(SQLStore(":memory:" if kind == "memory" else place))
        other = store if kind == "memory" else opened.enter_context(SQLStore(place))
        running = pool.submit(run, first, store=store, watcher=Signalling(begun, until=waits))
        assert begun.wait(60)
        log = Signalling(waits, until=never)
        done = run(second, store=other, watcher=log)
        assert (running.result().trained, done.trained) == (4, 2)
    assert [result.outcome for result in done.results] == [Outcome.FINISHED] * 4
    told = f"some of these trials are left to the run of {first.label}, which began earlier"
    assert [line for line in log.lines if line[0] == "warned"] == [("warned", told)]
    assert sum(line[0] == "ended" for line in log.lines) == 4
    with SQLStore("alone.db") as alone:
        assert digest_results(run(second, store=alone).results) == digest_results(done.results)


def test_a_run_that_was_taken_for_dead_leaves_its_trials_to_the_other_run_and_waits():
    """As after a restart of a database server, which ends locks: the other run looks before they are taken again."""
    first, second = sharing("first", own=2), sharing("second", other=3)
    waits, begun = threading.Event(), threading.Event()
    with SQLStore("s.db") as store, SQLStore("s.db") as other, ThreadPoolExecutor(1) as pool:

        class TakenForDead(Log):
            def on_trial_start(self, trial, machine):
                if not begun.is_set():
                    with patch.object(other, "trained_elsewhere", lambda study: {}):
                        running.append(pool.submit(run, second, store=other, watcher=Signalling(begun, until=waits)))
                        assert begun.wait(60)
                super().on_trial_start(trial, machine)

            def on_warning(self, trial, text):
                self.lines.append(("warned", text))
                if "began earlier" in text:
                    waits.set()

        running, log = [], TakenForDead()
        done = run(first, store=store, watcher=log)
        assert running[0].result().trained == 4
    assert [result.outcome for result in done.results] == [Outcome.FINISHED] * 4
    warnings = [line[1] for line in log.lines if line[0] == "warned"]
    assert warnings == [
        "another run took over a trial of this one, which is left to it",
        f"some of these trials are left to the run of {second.label}, which began earlier",
    ]
    assert done.trained == 2
    with SQLStore("alone.db") as alone:
        assert digest_results(run(first, store=alone).results) == digest_results(done.results)


def test_a_trial_that_is_taken_over_again_and_again_ends_the_run(make_study):
    study = make_study(seeds=1)

    class Thief(Callback):
        def on_trial_start(self, trial, machine):
            Calls(store).begin(trial, secrets.token_hex(4), machine, datetime.now(UTC))

    with SQLStore("s.db") as store, pytest.raises(TrialRestartedError, match="another process restarted this trial"):
        run(study, store=store, watcher=Thief())


def test_a_warning_about_data_is_no_download_and_a_total_is_above_zero(store, make_study, monkeypatch):
    def compose(study, trials, checkpoints, on_download, on_progress, *, elsewhere):
        on_download(0, 0, "a damaged array was set aside")
        on_download(1, None, "archive")
        on_download(1, 4, "archive")
        return Workload(loops.good, loops.machine, tuple(trials), checkpoints)

    class Downloads(Callback):
        def on_download(self, done, total, what):
            lines.append((done, total, what))

        def on_warning(self, trial, text):
            lines.append((trial, text))

    lines = []
    monkeypatch.setattr("fairtrial.runner.compose_workload", compose)
    run(make_study(seeds=1), store=store, executor=InlineExecutor(), watcher=Downloads())
    assert lines == [(None, "a damaged array was set aside"), (1, None, "archive"), (1, 4, "archive")]
