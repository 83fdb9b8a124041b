"""A Ray that is started here: who reaches it, and what is left of it."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from fairtrial.executors.ray.cluster import RayCluster

pytestmark = pytest.mark.slow

PATIENCE = 300  # seconds after which a test gives up; nothing waits that long unless it is broken

STRANGER = """
import sys
from fairtrial.executors.ray.cluster import RayCluster
try:
    cluster = RayCluster(sys.argv[1], 1)
    print("inside:", cluster.ray.get(cluster.ray.remote(lambda: 1).remote()))
except Exception as error:
    print(type(error).__name__, error)
"""

KILLED = """
import os, signal, sys
from fairtrial.executors.ray.cluster import RayCluster
cluster = RayCluster(None, 1)
print(cluster.ray.get(cluster.ray.remote(lambda: 1).remote()), flush=True)
sys.stdin.read()
"""

TOO_SLOW = """
import psutil, ray._private.services
from fairtrial.errors import FairtrialError
from fairtrial.executors.ray.cluster import RayCluster

def too_slow(*_):
    print(*(process.pid for process in psutil.Process().children(recursive=True)), flush=True)
    raise Exception("The current node timed out during startup.")  # as Ray raises it

ray._private.services.get_node = too_slow
try:
    RayCluster(None, 1)
except FairtrialError as error:
    print(error)
"""


@pytest.fixture
def folder(monkeypatch):
    """Let Ray keep its files in a folder of the test, whose name must be short."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def stranger(address, **token):
    """Try to enter a Ray from a process that knows its address, and tell what came of it."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    # By this variable Ray does not translate the loopback address into another.
    theirs = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    command = [sys.executable, "-c", STRANGER, address]
    done = subprocess.run(
        command, env=ours | theirs | token, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.stdout


def test_a_ray_of_ours_is_on_loopback_in_a_closed_folder_and_refuses_who_has_no_token(folder):
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
    cluster = RayCluster(None, 1)
    try:
        ray = psutil.Process().children(recursive=True)
        listening = [
            one.laddr.ip
            for process in [psutil.Process(), *ray]
            for one in process.net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 3
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        (own,) = folder.iterdir()
        assert own.stat().st_mode & 0o777 == 0o700
        address = cluster.ray.get_runtime_context().gcs_address
        refused = stranger(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        assert refused.startswith(f"FairtrialError no Ray cluster at {address}: ")
        assert refused.endswith("; one that asks for a token needs RAY_AUTH_MODE=token here too\n")
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
        assert stranger(address, **token) == "inside: 1\n"  # so it was the token that the other lacked
    finally:
        cluster.close()
    assert {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")} == before
    assert_gone(ray, folder)


def test_all_processes_of_a_ray_of_ours_end_with_a_parent_that_is_killed(folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline()
        ray = psutil.Process(parent.pid).children(recursive=True)
        assert len(ray) >= 5
        parent.kill()
    assert_gone(ray, folder)


def test_a_start_that_takes_too_long_is_one_line_and_leaves_nothing(folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", TOO_SLOW]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    numbers, line = done.stdout.splitlines()
    assert line == "Ray can't be started here: The current node timed out during startup."
    assert len(numbers.split()) >= 3
    assert_gone([psutil.Process(number) for number in map(int, numbers.split()) if psutil.pid_exists(number)], folder)


def assert_gone(processes, folder):
    """Wait until processes and what they kept in a folder are gone; Ray's agents by themselves take a minute."""
    deadline = time.monotonic() + 40
    while (any(alive(process) for process in processes) or [*folder.iterdir()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [process for process in processes if alive(process)] == []
    assert [*folder.iterdir()] == []


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
