"""Training loops that take no care, and need no torch."""

import contextlib
import itertools
import os
import random
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from pathlib import Path

import loops


def sound(trial):
    """Walk at random by the seeds, and save all that matters."""
    generator = random.Random(f"{trial.weights_seed} {trial.order_seed}")
    where, done = generator.random(), 0
    trial.fingerprint(initial_weights=str(trial.weights_seed), batch_order=str(trial.order_seed))
    if (state := trial.load()) is not None:
        where, done = state["where"], state["done"]
        generator.setstate(state["random"])
    for epoch in range(done, trial.epochs):
        where += trial.settings.params.get("pace", 1) * generator.random() / 100
        yield {"test_acc": where / 2}
        trial.save({"where": where, "done": epoch + 1, "random": generator.getstate()})


def nothing(trial):
    """Yield no record."""
    yield from ()


def strings(trial):
    """Yield texts."""
    for _ in range(trial.epochs):
        yield "test_acc=0.5"


def endless(trial):
    """Never yield."""
    while True:
        time.sleep(0.01)
    yield {}


def endless_and_begun(trial):
    """Say that this has begun, and never yield."""
    Path("begun").touch()
    yield from endless(trial)


def endless_records(trial):
    """Yield for ever."""
    for number in itertools.count():
        yield {"test_acc": 0.5 + number / 1e9}


def forking(trial):
    """Fork, and forget that there are two processes now."""
    child = loops.fork()
    if child:
        os.waitpid(child, 0)  # it is ended at its first record
    yield from sound(trial)


def leaving(trial):
    """Leave a process behind."""
    with Path("left").open("a") as file:
        file.write(f"{subprocess.Popen(['sleep', '600']).pid}\n")
    yield from sound(trial)


def with_helpers(trial):
    """Start what multiprocessing keeps."""
    resource_tracker.ensure_running()
    yield from sound(trial)


def loud(trial):
    """Print a lot, in every way."""
    for record in sound(trial):
        for _ in range(200):
            sys.stdout.write("x" * 999 + "\n")
            sys.stderr.write("y\n")
            os.write(1, b"native code prints, too\n")
        yield record


def own_seeds(trial):
    """Take no notice of any seed."""
    random.seed(42)
    where = 0.3
    for _ in range(trial.epochs):
        where += trial.settings.params.get("pace", 1) * random.random() / 100
        yield {"test_acc": where}


def raising(trial):
    """Meet an error."""
    yield {"test_acc": 0.5}
    raise ZeroDivisionError("division by zero")


def hostile(trial):
    """Meet an error whose text a terminal would obey."""
    yield {"test_acc": 0.5}
    raise ValueError("\x1b[2J\x07\u202e")


def dying(trial):
    """End the process."""
    yield {"test_acc": 0.5}
    os._exit(7)


def saving_before(trial):
    """Save before the record is out."""
    generator, done, where = random.Random(trial.order_seed), 0, trial.weights_seed / 1e9
    if (state := trial.load()) is not None:
        done, where = state["done"], state["where"]
        generator.setstate(state["random"])
    for epoch in range(done, trial.epochs):
        where += trial.settings.params.get("pace", 1) * generator.random() / 100
        trial.save({"done": epoch + 1, "where": where, "random": generator.getstate()})
        yield {"test_acc": where}


def saving_what_no_state_holds(trial):
    """Save an object."""
    for record in keeping_to_itself(trial):
        yield record
        trial.save({"state": object()})


def never_loading(trial):
    """Save, and never load."""
    generator = random.Random(f"{trial.weights_seed} {trial.order_seed}")
    for epoch in range(trial.epochs):
        yield {"test_acc": trial.settings.params.get("pace", 1) * generator.random() / 2}
        trial.save(epoch)


def swallowing(trial):
    """Go on, whatever is raised."""
    for record in keeping_to_itself(trial):
        yield record
        with contextlib.suppress(BaseException):
            trial.save(record)


def keeping_to_itself(trial):
    """Save nothing, and report nothing."""
    generator = random.Random(f"{trial.weights_seed} {trial.order_seed}")
    for _ in range(trial.epochs):
        yield {"test_acc": trial.settings.params.get("pace", 1) * generator.random() / 2}


def coarse(trial):
    """Give the same two numbers for all arms at one seed, and other ones at another."""
    generator = random.Random(f"{trial.weights_seed} {trial.order_seed}")
    pace = trial.settings.params.get("pace", 1)
    for _ in range(trial.epochs):
        yield {"test_acc": 0.1 if trial.weights_seed == 0 and trial.order_seed == 0 else pace * generator.random() / 2}
