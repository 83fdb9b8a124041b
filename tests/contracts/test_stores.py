"""The contract of `fairtrial.store.base`, tested with every store."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import create_engine, text

from fairtrial.errors import StoreError, StoreLockedError
from fairtrial.history import NOT_COUNTED
from fairtrial.question import Question, arm_digests
from fairtrial.scheduler import plan
from fairtrial.spec import Origin
from fairtrial.store.opening import read_snapshots
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import DatabaseURL
from fairtrial.trial import EpochRecord, Machine, Outcome, Snapshot
from store_calls import Calls

MACHINE = Machine({"torch": "2"}, "processor", "cpu", 2, "system", "abc+")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """The URL of a store of each kind that does not exist yet."""
    return str(tmp_path / "store.db") if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def reopen(place):
    """Open the same store again."""
    return lambda **options: SQLStore(place, **options)


@pytest.fixture
def store(reopen):
    with reopen() as opened:
        yield opened


def record(trial, epoch, **metrics):
    return EpochRecord(trial.arm, trial.seed, epoch, {"train_loss": 1 / 3, "test_acc": 0.1 + epoch / 7, **metrics})


def test_what_goes_in_comes_out_to_the_bit(store, reopen, make_study):
    study = make_study()
    trials = plan(study)
    store.add_study(study, NOW)
    records = [record(trials[0], epoch, grad_norm=1e-300, odd=float("inf")) for epoch in (1, 2)]
    Calls(store).begin(trials[0], "1", MACHINE, NOW)
    for one in records:
        Calls(store).add_epoch(trials[0], "1", one)
    Calls(store).end(trials[0], "1", Outcome.FINISHED, "", NOW + timedelta(seconds=9), reads=["params.pace", "model"])
    with reopen() as again:
        (result,) = again.results(study)
    assert result.epochs == tuple(records)
    assert (result.arm, result.seed, result.trial) == ("a", 0, trials[0].hash)
    assert (result.outcome, result.machine) == (Outcome.FINISHED, MACHINE)
    assert (result.started, result.ended) == (NOW, NOW + timedelta(seconds=9))
    assert result.reads == ("params.pace", "model")


def test_what_an_attempt_read_is_forgotten_by_the_next(store, make_study):
    study = make_study()
    (trial, *_) = plan(study)
    store.add_study(study, NOW)
    for attempt, reads in (("1", []), ("2", None)):
        Calls(store).begin(trial, attempt, MACHINE, NOW)
        Calls(store).end(trial, attempt, Outcome.FAILED, "", NOW, reads=reads)
        assert store.results(study)[0].reads == (None if reads is None else ())


def test_moments_come_back_in_utc(store, make_study):
    study = make_study()
    elsewhere = NOW.astimezone(tz=datetime.now().astimezone().tzinfo)
    store.add_study(study, elsewhere)
    assert store.studies()[0].last_run == NOW
    assert store.studies()[0].last_run.utcoffset() == timedelta(0)


def test_results_come_in_the_order_of_the_plan(store, make_study):
    study = make_study()
    trials = plan(study)
    store.add_study(study, NOW)
    for trial in reversed(trials):
        Calls(store).begin(trial, "1", MACHINE, NOW)
        for epoch in (2, 1):
            Calls(store).add_epoch(trial, "1", record(trial, epoch))
    results = store.results(study)
    assert [result.trial for result in results] == [trial.hash for trial in trials]
    assert all([one.epoch for one in result.epochs] == [1, 2] for result in results)


def test_studies_share_the_trials_they_have_in_common(store, make_study):
    small, large = make_study(seeds=1), make_study(seeds=3)
    for study in (small, large):
        store.add_study(study, NOW)
    trial = plan(small)[0]
    Calls(store).begin(trial, "1", MACHINE, NOW)
    Calls(store).end(trial, "1", Outcome.FINISHED, "", NOW)
    assert [result.trial for result in store.results(large)] == [trial.hash]
    assert store.outcomes(plan(large)) == {t.hash: Outcome.FINISHED if t == trial else None for t in plan(large)}


def test_results_need_no_study_only_its_trials(store, make_study):
    known, asked = make_study(), make_study(name="other", seeds=3)
    store.add_study(known, NOW)
    trial = plan(known)[3]
    Calls(store).begin(trial, "1", MACHINE, NOW)
    Calls(store).add_epoch(trial, "1", record(trial, 1))
    (result,) = store.results(asked)
    assert (result.trial, len(result.epochs)) == (trial.hash, 1)
    assert store.results(make_study(training={"epochs": 4, "loop": "loops:good"})) == []


def test_unknown_trials_have_no_outcome(store, make_study):
    assert store.outcomes(plan(make_study())) == {}


def test_the_study_that_ran_last_comes_first(store, make_study):
    one, two = make_study(), make_study(name="other")
    for minute, study in enumerate([one, two, one]):
        store.add_study(study, NOW + timedelta(minutes=minute))
    assert [study.name for study in store.studies()] == ["small", "other"]
    assert store.studies()[0].toml == one.to_toml()


def test_progress_is_counted_by_outcome(store, make_study):
    study = make_study(seeds=3)
    trials = plan(study)
    store.add_study(study, NOW)
    for trial, outcome in zip(trials, [*Outcome, None], strict=False):
        Calls(store).begin(trial, "1", MACHINE, NOW)
        if outcome:
            Calls(store).end(trial, "1", outcome, "why", NOW)
    (stored,) = store.studies()
    assert stored.outcomes == dict.fromkeys(Outcome, 1)
    assert (stored.trials, stored.started) == (6, 1)


def test_a_new_attempt_keeps_old_records_until_it_replaces_them(store, make_study):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    Calls(store).begin(trial, "1", MACHINE, NOW)
    for epoch in (1, 2, 3):
        Calls(store).add_epoch(trial, "1", record(trial, epoch))
    Calls(store).begin(trial, "2", replace(MACHINE, threads=1), NOW)
    Calls(store).add_epoch(trial, "2", record(trial, 1, train_acc=0.9))
    (result,) = store.results(study)
    assert [one.epoch for one in result.epochs] == [1, 2, 3]
    assert result.epochs[0].metrics["train_acc"] == 0.9
    assert (result.outcome, result.machine.threads) == (None, 1)
    Calls(store).end(trial, "2", Outcome.DIVERGED, "loss is nan", NOW)
    (result,) = store.results(study)
    assert [one.epoch for one in result.epochs] == [1]
    assert (result.outcome, result.detail) == (Outcome.DIVERGED, "loss is nan")


def test_fingerprints_are_those_of_the_last_attempt(store, make_study):
    study = make_study()
    trial, other = plan(study)[:2]
    store.add_study(study, NOW)
    for one in (trial, other):
        Calls(store).begin(one, "1", MACHINE, NOW)
    assert [result.fingerprints for result in store.results(study)] == [{}, {}]
    Calls(store).add_fingerprints(trial, "1", {"initial_weights": "ab", "batch_order": "unknown"})
    Calls(store).add_fingerprints(trial, "1", {"initial_weights": "ab", "batch_order": "cd"})
    Calls(store).end(trial, "1", Outcome.FAILED, "why", NOW)
    assert [result.fingerprints for result in store.results(study)] == [
        {"initial_weights": "ab", "batch_order": "cd"},
        {},
    ]
    Calls(store).begin(trial, "2", MACHINE, NOW)
    assert store.results(study)[0].fingerprints == {}
    Calls(store).add_fingerprints(trial, "2", {"initial_weights": "ef"})
    assert store.results(study)[0].fingerprints == {"initial_weights": "ef"}


def snapshot(trial, step, **statistics):
    numbers = {"eps_1": step / 7, "odd": math.inf, **statistics}
    return Snapshot(trial.arm, trial.seed, 1, step, numbers, {"linear": numbers}, {"0.weight": numbers}, ("no cosine",))


def test_snapshots_come_out_to_the_bit_and_only_where_asked(store, reopen, make_study):
    study = make_study()
    trial, other, *_ = plan(study)
    store.add_study(study, NOW)
    taken = [snapshot(trial, step) for step in (1, 2, 50)]
    for one in (trial, other):
        Calls(store).begin(one, "1", MACHINE, NOW)
    for one in taken:
        Calls(store).add_snapshot(trial, "1", one)
    Calls(store).end(trial, "1", Outcome.FINISHED, "", NOW)
    with reopen(create=False) as again:
        assert again.snapshots([one.hash for one in plan(study)]) == {trial.hash: tuple(taken)}
        assert again.snapshots([trial.hash], tensors=False)[trial.hash][2] == replace(taken[2], tensors={})
        assert again.results(study)[0].snapshots == ()
        assert again.check() == ""


def test_snapshots_are_those_of_the_last_attempt(store, make_study):
    """As of epoch records: those of the attempt before stay until they are replaced, or the trial ends."""
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    Calls(store).begin(trial, "1", MACHINE, NOW)
    for step in (1, 2, 3):
        Calls(store).add_snapshot(trial, "1", snapshot(trial, step))
    Calls(store).begin(trial, "2", MACHINE, NOW)
    Calls(store).add_snapshot(trial, "2", snapshot(trial, 2, own=2))
    assert [one.overall.get("own") for one in store.snapshots([trial.hash])[trial.hash]] == [None, 2, None]
    with pytest.raises(StoreError, match="another process restarted this trial"):
        Calls(store).add_snapshot(trial, "1", snapshot(trial, 4))
    Calls(store).end(trial, "2", Outcome.FINISHED, "", NOW)
    assert store.snapshots([trial.hash]) == {trial.hash: (snapshot(trial, 2, own=2),)}
    Calls(store).begin(trial, "3", MACHINE, NOW)
    Calls(store).end(trial, "3", Outcome.FINISHED, "", NOW)
    assert store.snapshots([trial.hash]) == {}
    assert store.check() == ""


def test_of_a_store_that_is_gone_there_are_no_snapshots():
    assert read_snapshots("gone.db", ["ab"]) == {}


def test_a_store_from_before_snapshots_goes_on(store, reopen, place, make_study):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    Calls(store).begin(trial, "1", MACHINE, NOW)
    engine = create_engine(DatabaseURL.of(place).url)
    with engine.begin() as connection:
        for table in ("snapshots", "xrays"):
            connection.execute(text(f"DROP TABLE {table}"))
    engine.dispose()
    with reopen(create=False) as old:
        assert old.snapshots([trial.hash]) == {}
        assert old.check() == ""
        assert len(old.results(study)) == 1
    with reopen() as current:
        Calls(current).add_snapshot(trial, "1", snapshot(trial, 1))
        assert current.snapshots([trial.hash]) == {trial.hash: (snapshot(trial, 1),)}


def test_only_planned_trials_begin_and_only_begun_ones_continue(store, make_study):
    study = make_study()
    trial = plan(study)[0]
    with pytest.raises(StoreError, match="trial a, seed 0 is not in this store"):
        Calls(store).begin(trial, "1", MACHINE, NOW)
    store.add_study(study, NOW)
    with pytest.raises(StoreError, match="trial a, seed 0 has not begun"):
        Calls(store).add_epoch(trial, "1", record(trial, 1))
    with pytest.raises(StoreError, match="trial a, seed 0 has not begun"):
        Calls(store).add_fingerprints(trial, "1", {"initial_weights": "ab"})
    assert store.results(study) == []


def test_a_superseded_attempt_is_refused_and_spoils_nothing(store, reopen, make_study):
    """Two runs on one store: the last one to begin a trial owns it, and no finished trial lacks an epoch."""
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    Calls(store).begin(trial, "1", MACHINE, NOW)
    Calls(store).add_epoch(trial, "1", record(trial, 1))
    with reopen() as other:
        Calls(other).begin(trial, "2", MACHINE, NOW)
        for late in (
            lambda: Calls(store).add_epoch(trial, "1", record(trial, 2)),
            lambda: Calls(store).add_fingerprints(trial, "1", {"initial_weights": "late"}),
            lambda: Calls(store).end(trial, "1", Outcome.FINISHED, "", NOW),
        ):
            with pytest.raises(StoreError) as caught:
                late()
            assert str(caught.value) == "stopping: another process restarted this trial (arm a, seed 0)"
        for epoch in (1, 2):
            Calls(other).add_epoch(trial, "2", record(trial, epoch))
        Calls(other).end(trial, "2", Outcome.FINISHED, "", NOW)
    (result,) = store.results(study)
    assert [one.epoch for one in result.epochs] == [1, 2]
    assert result.fingerprints == {}


def test_readers_see_whole_transactions_while_one_writes(store, reopen, make_study):
    study = make_study()
    store.add_study(study, NOW)
    trial = plan(study)[0]
    Calls(store).begin(trial, "1", MACHINE, NOW)
    with reopen() as reader:
        for epoch in range(1, 20):
            Calls(store).add_epoch(trial, "1", record(trial, epoch))
            assert len(reader.results(study)[0].epochs) == epoch


def test_many_trials_at_once(store, make_study):
    study = make_study(seeds=800)
    store.add_study(study, NOW)
    assert len(store.outcomes(plan(study))) == 1600
    last = plan(study)[-1]
    Calls(store).begin(last, "1", MACHINE, NOW)
    Calls(store).add_epoch(last, "1", record(last, 1))
    assert [(result.trial, len(result.epochs)) for result in store.results(study)] == [(last.hash, 1)]


def test_numbers_that_are_none_come_back(store, make_study):
    """JSON knows neither NaN nor infinities, but trials that diverged have them."""
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    Calls(store).begin(trial, "1", MACHINE, NOW)
    odd = {
        "train_loss": math.nan,
        "test_loss": math.inf,
        "val_loss": -math.inf,
        "norm": math.nan,
        "test_acc": 5e-324,
        'odd ":"': 1.0,
    }
    Calls(store).add_epoch(trial, "1", EpochRecord("a", 0, 1, odd))
    (result,) = store.results(study)
    assert {name: repr(value) for name, value in result.epochs[0].metrics.items()} == {
        name: repr(value) for name, value in odd.items()
    }


def test_tracebacks_with_what_databases_refuse_are_kept(store, make_study):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    Calls(store).begin(trial, "1", replace(MACHINE, processor="half \udc80"), NOW)
    Calls(store).end(trial, "1", Outcome.FAILED, "a\0b, half \udc80, whole é𝄞" + "x" * 100_000, NOW)
    (result,) = store.results(study)
    assert result.detail == "a\\x00b, half \\udc80, whole é𝄞" + "x" * 100_000
    assert result.machine.processor == "half \udc80"


def test_the_origin_of_a_study_stays_until_a_run_has_another(store, make_study):
    study = make_study()

    def origin():
        (stored,) = store.studies()
        return stored.source, stored.assignments

    store.add_study(study, NOW)
    assert origin() == (None, ())
    store.add_study(study.with_origin(Origin("a.toml", ("seeds=2", "params.x=1"))), NOW)
    assert origin() == ("a.toml", ("seeds=2", "params.x=1"))
    store.add_study(study, NOW)
    assert origin() == ("a.toml", ("seeds=2", "params.x=1"))
    store.add_study(study.with_origin(Origin("b.toml")), NOW)
    assert origin() == ("b.toml", ())


def test_a_new_study_has_its_origin(store, make_study):
    store.add_study(make_study().with_origin(Origin("paper", ("seeds=2",))), NOW)
    assert [(one.source, one.assignments) for one in store.studies()] == [("paper", ("seeds=2",))]


def write_trial(writer, trial, attempt="1"):
    writer.begin(trial, attempt, MACHINE, NOW)
    writer.add_fingerprints(trial, attempt, {"data": "all"})
    for epoch in (1, 2):
        writer.add_epoch(trial, attempt, record(trial, epoch))
    writer.end(trial, attempt, Outcome.FINISHED, "", NOW)


def test_what_is_written_at_once_is_one_transaction(store, reopen, make_study):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    with reopen() as other:

        def work(writer):
            for attempt in "12":
                write_trial(writer, trial, attempt)
            assert other.results(study) == []
            return "done"

        assert store.write(work) == "done"
        (result,) = other.results(study)
    assert (len(result.epochs), result.outcome) == (2, Outcome.FINISHED)


@pytest.mark.parametrize("error", [KeyError("theirs"), StoreError("ours"), KeyboardInterrupt()])
def test_an_exception_undoes_the_whole_transaction(store, make_study, error):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)

    def work(writer):
        write_trial(writer, trial)
        raise error

    with pytest.raises(type(error)) as caught:
        store.write(work)
    assert caught.value is error
    assert store.results(study) == []
    store.write(lambda writer: write_trial(writer, trial))
    assert len(store.results(study)) == 1


def test_a_refused_call_undoes_the_whole_transaction(store, make_study):
    study = make_study()
    first, second = plan(study)[:2]
    store.add_study(study, NOW)

    def work(writer):
        write_trial(writer, first)
        writer.add_epoch(second, "1", record(second, 1))

    with pytest.raises(StoreError, match=f"trial {second.arm}, seed {second.seed} has not begun"):
        store.write(work)
    assert store.results(study) == []


def test_an_error_of_the_database_undoes_the_whole_transaction(store, make_study):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)

    def work(writer):
        writer.begin(trial, "1", MACHINE, NOW.replace(tzinfo=None))

    with pytest.raises(StoreError, match=r"^the store .* can't be written: "):
        store.write(work)
    assert store.results(study) == []
    store.write(lambda writer: write_trial(writer, trial))


def test_the_same_calls_again_have_the_same_effect(store, make_study):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    seen = []
    for _ in range(2):
        store.write(lambda writer: write_trial(writer, trial))
        seen.append(store.results(study))
    assert seen[0] == seen[1]


def test_what_was_forced_is_kept_with_the_attempt(store, make_study):
    study = make_study()
    trial = plan(study)[0]
    store.add_study(study, NOW)
    for attempt, forced in (("1", "threads 1, now 2; \udc80"), ("2", "")):
        Calls(store).begin(trial, attempt, MACHINE, NOW, forced)
        assert [result.forced for result in store.results(study)] == [forced.replace("\udc80", "\\udc80")]


def test_any_thread_may_write_while_another_reads(store, make_study):
    study = make_study()
    store.add_study(study, NOW)
    seen = []

    def write():
        for trial in plan(study):
            store.write(partial(write_trial, trial=trial))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            seen += [len(result.epochs) for result in store.results(study)]
        writing.result()
    assert set(seen) <= {2}
    assert [len(result.epochs) for result in store.results(study)] == [2] * 4


def test_a_study_is_locked_by_one_run(store, reopen, make_study):
    study, another = make_study(), make_study(name="other")
    who = rf"small@{study.hash[:8]} is being run in this store already, by .*process {os.getpid()} on .* since 20.* UTC"
    with store.lock(study):
        with reopen() as other:
            for one in (other, store):
                with pytest.raises(StoreLockedError, match=f"^{who}.*: wait for it or stop it, or name another"):
                    one.lock(study).__enter__()
            with other.lock(another):
                pass
        store.add_study(study, NOW)
        store.write(lambda writer: write_trial(writer, plan(study)[0]))
        with pytest.raises(StoreLockedError):
            store.lock(study).__enter__()
    with reopen() as other, other.lock(study):
        pass


def test_two_runs_at_once_of_studies_that_share_trials(store, reopen, make_study):
    one, two = make_study(name="one", seeds=20), make_study(name="two", seeds=20)

    def run(opened, study, own):
        with opened.lock(study):
            opened.add_study(study, NOW)
            for trial in plan(study)[own::2]:
                opened.write(partial(write_trial, trial=trial, attempt=f"{study.name} {trial.hash}"))

    with reopen() as other, ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, store, one, 0), pool.submit(run, other, two, 1)]
        assert [done.result() for done in runs] == [None, None]
    assert [stored.trials for stored in store.studies()] == [40, 40]
    assert [len(result.epochs) for result in store.results(two)] == [2] * 40


# What studies ask, and when


def finish(store, study, trials=None):
    """End trials of a study, all of them by default."""
    for trial in plan(study) if trials is None else trials:
        store.write(partial(write_trial, trial=trial))


def test_a_study_that_runs_is_registered_once(store, reopen, make_study):
    study = make_study(evidence={"margin": 0.01})
    unknown = store.history(study)
    assert (unknown.own.ended, unknown.own.earlier, unknown.before) == ({}, (), ())
    store.add_study(study, NOW)
    finish(store, study)
    with reopen() as other:
        other.add_study(study, NOW + timedelta(days=1))
        other.add_study(make_study(name="another_name", evidence={"margin": 0.01}), NOW + timedelta(days=2))
        found = other.history(study)
    assert (found.own.at, found.own.ended, found.before) == (NOW, {}, ())
    assert found.own.question == Question.of(study)


def test_what_had_ended_is_registered(store, make_study):
    study, later = make_study(), make_study(evidence={"margin": 0.01})
    store.add_study(study, NOW)
    finish(store, study, plan(study)[:3])
    store.add_study(later, NOW)
    arms = arm_digests(study)
    assert store.history(later).own.ended == {arms["a"]: 2, arms["b"]: 1}
    assert store.history(study).before[0].ended == {}
    finish(store, study)
    assert store.history(study).set_afterwards(study) == (NOT_COUNTED,)  # it was passed over, and has not gone on
    store.register(study, NOW)
    assert store.history(study).set_afterwards(study) == ()


def test_trials_on_fresh_seeds_are_others(store, make_study):
    study, fresh = make_study(), make_study(noise={"first_seed": 1000})
    store.add_study(study, NOW)
    finish(store, study)
    assert (store.history(fresh).own.ended, store.history(fresh).before) == ({}, ())
    assert store.history(fresh).set_afterwards(fresh) == ()


def test_looks_are_counted_in_their_order_and_never_again(store, make_study):
    first, second, third = (make_study(seeds=seeds) for seeds in (2, 4, 5))
    for study in (first, second):
        store.add_study(study, NOW)
        finish(store, study)
    assert store.history(third).own.earlier == (1, 2)  # as if it were run now
    store.add_study(third, NOW)
    store.add_study(first, NOW)
    known = [store.history(study) for study in (first, second, third)]
    assert [(one.own.number, one.own.earlier) for one in known] == [(1, ()), (2, (1,)), (3, (1, 2))]
    assert [len(one.before) for one in known] == [0, 1, 2]


def test_a_look_that_nobody_has_taken_does_not_count(store, make_study):
    first, second = make_study(seeds=3), make_study(seeds=4)
    store.add_study(first, NOW)
    finish(store, first, plan(first)[:-1])
    store.add_study(second, NOW)
    assert store.history(second).own.earlier == ()


def test_a_look_that_was_taken_counts_while_a_trial_is_run_again(store, make_study):
    first, second = make_study(seeds=3), make_study(seeds=4)
    store.add_study(first, NOW)
    finish(store, first)
    store.write(lambda writer: writer.begin(plan(first)[0], "again", MACHINE, NOW))
    assert store.results(first)[0].ended is None
    store.add_study(second, NOW)
    assert store.history(second).own.earlier == (1,)


def test_trials_with_further_evaluations_are_of_the_same_arm(store, make_study):
    arms = {"a": {}, "b": {"optimizer": {"eps": 1e-6}}}
    study, longer = (make_study(training={"epochs": 2}, arms=arms, seeds=seeds) for seeds in (2, 3))
    more = make_study(training={"epochs": 2, "ema": 0.999}, arms=arms)
    store.add_study(more, NOW)
    finish(store, more)
    assert store.history(study).own.number == 1  # it asks the same
    found = store.history(longer).own
    assert (found.earlier, found.ended) == ((1,), dict.fromkeys(arm_digests(study).values(), 2))


def test_a_study_that_was_passed_over_looks_after_the_one_that_passed_it(store, make_study):
    first, second = make_study(seeds=2), make_study(seeds=4)
    store.add_study(first, NOW)
    store.add_study(second, NOW)
    finish(store, second)
    assert store.history(first).own.earlier == (2,)
    store.register(first, NOW)
    assert (store.history(first).own.number, store.history(first).own.earlier) == (3, (2,))
    assert store.history(second).own.number == 2


def test_a_single_seed_is_no_look(store, make_study):
    one, more = make_study(seeds=1), make_study(seeds=3)
    store.add_study(one, NOW)
    finish(store, one)
    store.add_study(more, NOW)
    found = store.history(more)
    assert (found.own.earlier, len(found.before)) == ((), 1)


def test_studies_of_other_arms_are_no_part_of_a_history(store, make_study):
    study, other = make_study(), make_study(arms={"a": {}, "c": {"params": {"pace": 3}}})
    for one in (study, other):
        store.add_study(one, NOW)
        finish(store, one)
    assert store.history(other).before == ()
    assert store.history(study).before == ()
    both = make_study(arms={"a": {}, "b": {"params": {"pace": 2}}, "c": {"params": {"pace": 3}}})
    assert store.history(both).own.earlier == (1, 2)
    assert [stage.number for stage in store.history(study).beside] == [2]


def test_studies_beside_a_study_were_looked_at(store, make_study):
    study, fresh = make_study(), make_study(noise={"first_seed": 1000})
    store.add_study(study, NOW)
    store.add_study(fresh, NOW)
    assert store.history(study).beside == ()
    finish(store, fresh)
    assert [stage.number for stage in store.history(study).beside] == [2]
    assert store.history(study).asked == (Question.of(study), Question.of(fresh))
