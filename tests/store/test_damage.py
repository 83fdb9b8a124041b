"""Damaged stores: what is read is what was written, or one line names the damage."""

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from fairtrial.cli.main import app
from fairtrial.doctor import CheckStatus, check_installation
from fairtrial.errors import FairtrialError, StoreDamagedError
from fairtrial.scheduler import plan
from fairtrial.spec import Origin, Study
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import DatabaseURL
from fairtrial.trial import EpochRecord, Machine, Outcome, Snapshot
from store_calls import Calls

MACHINE = Machine({"torch": "2"}, "processor", "cpu", 2, "system", "abc+", code={"loops.py": "ab" * 32})
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
PAGE = 4096

SMALL = {
    "name": "small",
    "reference": "a",
    "seeds": 4,
    "training": {"epochs": 3, "loop": "loops:good"},
    "arms": {"a": {}, "b": {"params": {"pace": 2}}},
}
STUDIES = (
    Study.from_dict(SMALL).with_origin(Origin("small.toml", ("seeds=4",))),
    Study.from_dict({**SMALL, "name": "larger", "seeds": 5, "evidence": {"margin": 0.01}}),
)


def fill(place):
    """Make a store with a study that ended in every way, but for a trial that was interrupted, and one that goes on."""
    study, larger = STUDIES

    def work(writer):
        for number, trial in enumerate(plan(study)):
            writer.begin(trial, "1", MACHINE, NOW, "threads 1, now 2" if number == 2 else "")
            writer.add_fingerprints(trial, "1", {"initial_weights": f"{trial.seed:064x}", "final_weights": "ab" * 32})
            for epoch in (1, 2, 3):
                metrics = {"train_loss": 1 / (number + epoch), "test_acc": epoch / 7, "train_seconds": 1.5}
                writer.add_epoch(trial, "1", EpochRecord(trial.arm, trial.seed, epoch, metrics))
            for step in (1, 2):
                statistics = {"eps_1": step / 8}
                snapshot = Snapshot(trial.arm, trial.seed, 1, step, statistics, {}, {"0.weight": statistics})
                writer.add_snapshot(trial, "1", snapshot)
            if number < 7:
                outcome = Outcome.FAILED if number == 5 else Outcome.FINISHED
                writer.end(trial, "1", outcome, "a traceback" if number == 5 else "", NOW, reads=["params.pace"])

    with SQLStore(place) as store:
        store.add_study(study, NOW)
        store.write(work)
        store.add_study(larger, NOW)


def read(place):
    """Read all that a store has to say; what has no stage would have one of now."""
    with SQLStore(place, create=False) as store:
        histories = [store.history(study) for study in STUDIES]
        return (
            [one if one.registered else replace(one, own=replace(one.own, at=NOW)) for one in histories],
            [store.results(study) for study in STUDIES],
            store.snapshots([trial.hash for trial in plan(STUDIES[1])]),
            store.outcomes(plan(STUDIES[1])),
            store.studies(),
        )


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A small store's bytes, what it says, and a path for damaged copies."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path_factory.getbasetemp()
    path = folder / f"fairtrial-damage-{os.getpid()}.db"
    fill(str(path))
    yield path.read_bytes(), read(str(path)), path
    for left in folder.glob(f"{path.name}*"):
        left.unlink()


def flip(content, at, _, bit):
    content[at] ^= 1 << bit


def cut(content, at, *_):
    del content[at:]


def zero(content, at, *_):
    start = at - at % PAGE
    content[start : start + PAGE] = bytes(len(content[start : start + PAGE]))


def swap(content, at, other, _):
    one, two = (slice(start - start % PAGE, start - start % PAGE + PAGE) for start in (at, other))
    content[one], content[two] = content[two], content[one]


def overwrite(content, at, other, _):
    noise = random.Random(other).randbytes(1 + other % 300)
    content[at : at + len(noise)] = noise[: len(content) - at]


@pytest.mark.slow
@settings(max_examples=1_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    harm=st.sampled_from([flip, flip, flip, cut, zero, swap, overwrite]),
    at=st.floats(0, 1, exclude_max=True),
    other=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_damaged_store_is_read_as_it_was_or_named(sound, harm, at, other, bit):
    content, expected, path = sound
    damaged = bytearray(content)
    harm(damaged, int(at * len(content)), int(other * len(content)), bit)
    path.write_bytes(damaged)
    try:
        *found, studies = read(str(path))
    except FairtrialError as error:
        found, message = None, str(error)
    if found is None:
        assert str(path) in message
        assert "\n" not in message
        return
    assert found == list(expected[:-1])
    assert all(one == known or one.damage for one, known in zip(studies, expected[-1], strict=True))


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_of_a_record_is_named(sound, data):
    """Bits of the text of a record, wherever SQLite keeps it: none may change a result without notice."""
    content, _, path = sound
    marks = [b'{"train_loss":', b"finished", b"a traceback", b'{"initial_weights":', b'{"versions":', b"params.pace"]
    mark = data.draw(st.sampled_from(marks))
    found = [at for at in range(len(content)) if content.startswith(mark, at)]
    damaged = bytearray(content)
    damaged[data.draw(st.sampled_from(found)) + data.draw(st.integers(0, len(mark) - 1))] ^= 1 << data.draw(
        st.integers(0, 6)
    )
    path.write_bytes(damaged)
    with contextlib.suppress(StoreDamagedError):
        assert read(str(path)) == sound[1]  # in a page that is not used


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request):
    return "s.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def execute(place):
    """Change a store as only another program would."""

    def execute(statement):
        engine = create_engine(DatabaseURL.of(place).url)
        with engine.begin() as connection:
            assert connection.execute(text(statement)).rowcount > 0
        engine.dispose()

    return execute


TRIAL = f"hash = '{plan(STUDIES[0])[3].hash}'"  # arm b, seed 1
NAMED = r"the record of trial b, seed 1 of small@\w{8}"
REMEDY = r"; copy back a backup, or train its study again in another store \(--store\)$"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"UPDATE trials SET outcome = 'diverged' WHERE {TRIAL}", f"{NAMED} does not match its checksum"),
        (f"UPDATE trials SET seed = 3 WHERE {TRIAL}", f"{NAMED} does not match its checksum"),
        (f"UPDATE trials SET fingerprints = '{{}}' WHERE {TRIAL}", f"{NAMED} does not match its checksum"),
        (f"UPDATE trials SET reads = NULL WHERE {TRIAL}", f"{NAMED} does not match its checksum"),
        (f"UPDATE trials SET attempt = NULL WHERE {TRIAL}", f"{NAMED} does not match its checksum"),
        (f"UPDATE trials SET machine = replace(machine, 'ab', 'ba') WHERE {TRIAL}", f"{NAMED} does not match"),
        (f"UPDATE trials SET started_at = ended_at, ended_at = NULL WHERE {TRIAL}", f"{NAMED} does not match"),
        (
            f"UPDATE epoch_records SET metrics = replace(metrics, '1.5', '1.4') WHERE {TRIAL.replace('hash', 'trial')}",
            f"{NAMED} does not match its checksum",
        ),
        (
            f"UPDATE epoch_records SET attempt = '9' WHERE epoch = 2 AND {TRIAL.replace('hash', 'trial')}",
            f"{NAMED} does not match its checksum",
        ),
        (
            f"UPDATE epoch_records SET epoch = 4 WHERE epoch = 3 AND {TRIAL.replace('hash', 'trial')}",
            f"{NAMED} does not match its checksum",
        ),
        (
            f"DELETE FROM epoch_records WHERE epoch = 3 AND {TRIAL.replace('hash', 'trial')}",
            f"{NAMED} does not match its checksum",
        ),
        ("UPDATE studies SET toml = replace(toml, '4', '3') WHERE name = 'small'", "the record of study small@"),
        ("UPDATE study_trials SET position = 99 WHERE position = 2", "the list of trials of study small@"),
        ("DELETE FROM study_trials WHERE position = 2", "the list of trials of study small@"),
    ],
)
def test_what_another_program_changes_is_named(place, execute, statement, message):
    fill(place)
    execute(statement)
    with SQLStore(place) as store:
        with pytest.raises(StoreDamagedError, match=rf"^the store \S+ is damaged: {message}.*{REMEDY}"):
            store.results(STUDIES[0])
        assert store.check()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE stages SET question = replace(question, '0.01', '0.02') WHERE number = 2", "stage 2, what a study"),
        ("DELETE FROM stages WHERE number = 2", "one or more rows of the table stages are missing"),
        ("UPDATE trials SET settings = replace(settings, '64', '63')", "the settings of trial"),
    ],
)
def test_what_studies_asked_is_checked(place, execute, statement, message):
    fill(place)
    execute(statement)
    with SQLStore(place) as store:
        with pytest.raises(StoreDamagedError, match=f"is damaged: {message}"):
            store.history(STUDIES[0])
        assert message in store.check()


OF_TRIAL = TRIAL.replace("hash", "trial")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (f"UPDATE snapshots SET statistics = replace(statistics, '0.25', '0.5') WHERE {OF_TRIAL}", "does not match"),
        (f"UPDATE snapshots SET tensors = replace(tensors, '0.25', '0.5') WHERE {OF_TRIAL}", "does not match"),
        (f"UPDATE snapshots SET epoch = 2 WHERE step = 2 AND {OF_TRIAL}", "does not match"),
        (f"DELETE FROM snapshots WHERE step = 2 AND {OF_TRIAL}", "does not match"),
        (f"DELETE FROM snapshots WHERE {OF_TRIAL}", "does not match"),
        (f"UPDATE xrays SET last_step = 3 WHERE {OF_TRIAL}", "does not match"),
        (f"DELETE FROM xrays WHERE {OF_TRIAL}", "is missing"),
    ],
)
def test_snapshots_are_checked(place, execute, statement, problem):
    fill(place)
    execute(statement)
    trial = plan(STUDIES[0])[3].hash
    with SQLStore(place) as store:
        with pytest.raises(StoreDamagedError, match=f"is damaged: the x-ray of trial {trial[:12]} {problem}"):
            store.snapshots([trial])
        assert len(store.results(STUDIES[0])) == 8
        assert f"the x-ray of trial {trial[:12]}" in store.check()


def test_a_list_of_studies_that_lost_one_is_refused(execute, place):
    fill(place)
    execute("UPDATE fairtrial_version SET studies = 3")
    with SQLStore(place) as store, pytest.raises(StoreDamagedError, match="rows of the table studies are missing"):
        store.studies()


def test_a_damaged_trial_leaves_other_studies_readable(place, execute):
    fill(place)
    with SQLStore(place) as store:
        other = Study.from_dict({**SMALL, "name": "other", "training": {"epochs": 2, "loop": "loops:good"}})
        store.add_study(other, NOW)
    execute(f"UPDATE trials SET outcome = 'failed' WHERE {TRIAL}")
    with SQLStore(place) as store:
        damage = {one.name: one.damage for one in store.studies()}
        assert store.results(other) == []
    named = "the record of trial b, seed 1 does not match its checksum"
    assert damage == {"small": named, "larger": named, "other": ""}


@pytest.mark.parametrize("damage", ["DELETE FROM epoch_records", "UPDATE epoch_records SET attempt = '9'"])
def test_a_writer_does_not_cover_damage_up(place, execute, damage):
    fill(place)
    running = plan(STUDIES[0])[7]
    execute(f"{damage} WHERE epoch = 2 AND trial = '{running.hash}'")
    with SQLStore(place) as store:
        record = EpochRecord(running.arm, running.seed, 4, {"test_acc": 0.5})
        Calls(store).add_epoch(running, "1", record)  # what it adds does not heal what was there
        with pytest.raises(StoreDamagedError, match="the record of trial b, seed 3 of small"):
            store.results(STUDIES[0])
        with pytest.raises(StoreDamagedError, match="the record of trial b, seed 3 does not match its checksum"):
            Calls(store).end(running, "1", Outcome.FINISHED, "", NOW)
        execute(f"UPDATE trials SET detail = 'x' WHERE {TRIAL}")
        with pytest.raises(StoreDamagedError, match="the record of trial b, seed 1 does not match its checksum"):
            Calls(store).begin(plan(STUDIES[0])[3], "2", MACHINE, NOW)


def test_both_databases_have_the_same_checksums(postgresql):
    found = []
    for place in ("s.db", postgresql):
        fill(place)
        engine = create_engine(DatabaseURL.of(place).url)
        with engine.begin() as connection:
            found.append(
                [
                    connection.execute(text(f"SELECT checksum FROM {table} ORDER BY checksum")).all()
                    for table in ("studies", "trials", "stages")
                ]
            )
        engine.dispose()
    assert found[0] == found[1]


def test_tables_that_are_gone_are_damage_and_no_new_store():
    fill("s.db")
    with sqlite3.connect("s.db") as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master")
    connection.close()
    for create in (True, False):
        with pytest.raises(StoreDamagedError, match=r"^the store s\.db is damaged: the list of its tables is empty"):
            SQLStore("s.db", create=create)


COMMANDS = [
    ["table", "small"],
    ["verdict", "small"],
    ["claims", "small"],
    ["failures", "small"],
    ["export", "small", "--out", "records.csv"],
    ["digest", "small"],
    ["plan", "small"],
    ["run", "small"],
    ["ls"],
]


@pytest.mark.parametrize("kind", ["a flipped bit", "a zeroed page", "half of it", "no database"])
def test_every_command_ends_in_one_line(kind, sound):
    content = bytearray(sound[0])
    if kind == "a flipped bit":
        at = content.index(b'{"train_loss":0.5')
        content[at + 14] ^= 1
    elif kind == "a zeroed page":
        zero(content, content.index(b'{"train_loss":'))
    elif kind == "half of it":
        del content[len(content) // 2 :]
    else:
        content[:] = b"no database " * 1_000
    Path("fairtrial.db").write_bytes(content)
    program = (
        "import sys; from fairtrial.cli import main\n"
        "for words in eval(sys.argv[1]):\n"
        "    sys.argv = ['fairtrial', *words]\n"
        "    print('==', *words, file=sys.stderr, flush=True)\n"
        "    try: main.main()\n"
        "    except SystemExit as end: print('--', end.code, file=sys.stderr, flush=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program, str(COMMANDS)], env=environment, capture_output=True, text=True, check=True
    )
    told = [part.splitlines() for part in done.stderr.split("== ")[1:]]
    assert [lines[0] for lines in told] == [" ".join(words) for words in COMMANDS]
    for command, *lines, status in told:
        if command != "ls":
            assert (len(lines), status) == (1, "-- 1"), done.stderr
            assert lines[0].startswith("fairtrial: the store fairtrial.db ")
    assert Path("fairtrial.db").read_bytes() == content
    (store,) = (part for part in check_installation() if part.part == "store")
    assert store.state is CheckStatus.BAD
    assert "damaged" in store.detail


def test_the_list_of_studies_names_damage(sound):
    Path("fairtrial.db").write_bytes(sound[0].replace(b"a traceback", b"no traceback"[:11]))
    done = CliRunner().invoke(app, ["ls"])
    assert done.stdout.count("damaged") == 2
    assert str(done.exception) == (
        "the store fairtrial.db is damaged: the record of trial b, seed 2 does not match its checksum"
    )
