"""A Ray cluster of real nodes, all on this machine: one lost, all lost, none there."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import fairtrial
import loops
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, EpochFinished, NodeData, Started
from fairtrial.executors.inline import InlineExecutor
from fairtrial.executors.ray.executor import RayExecutor
from fairtrial.scheduler import plan
from fairtrial.trial import Outcome
from workloads import opened, submit

pytestmark = [
    pytest.mark.slow,
    # Ray's helper for tests leaves the processes and log files of nodes that it has killed to the garbage collector.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file .*ray:ResourceWarning"),
]

PATIENCE = 90  # seconds after which a test gives up; nothing waits that long unless it is broken


@pytest.fixture
def start():
    """Start the head of a cluster; it is shut down after the test."""
    clusters = []

    def make(**options):
        head = {"num_cpus": 0, "include_dashboard": False} | options
        clusters.append(Cluster(initialize_head=True, head_node_args=head))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.shutdown()


@pytest.fixture
def trials(make_study):
    return plan(make_study(seeds=2, training={"epochs": 3, "loop": "loops:waiting_for_go"}))


def drain(session, on_message):
    """Read all messages, telling of each; fails rather than waiting for ever."""
    heard, deadline = [], time.monotonic() + PATIENCE
    for message in session.messages():
        assert time.monotonic() < deadline
        if message is not None:
            heard.append(message)
            on_message(heard)
    return heard


def records(messages):
    """What a store would hold in the end: of each trial, the records since it last began; without process numbers."""
    kept = {}
    for message in messages:
        story = kept.setdefault(message.trial_id, [])
        if isinstance(message, Started):
            story.clear()
        if isinstance(message, EpochFinished):
            numbers = {k: v for k, v in message.record.metrics.items() if k not in {"pid", "parent"}}
            story.append((message.record.epoch, numbers))
        if isinstance(message, Ended):
            story.append((message.outcome, message.detail))
    return kept


def one_dies(pids):
    """Wait until one of some processes has ended: a worker must not outlive its node."""
    deadline = time.monotonic() + PATIENCE
    while all(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not all(Path(f"/proc/{pid}").exists() for pid in pids)


def begun(messages):
    return [message.trial_id for message in messages if isinstance(message, Started)]


def test_the_trials_of_a_lost_node_go_to_another(start, trials):
    cluster = start()
    cluster.add_node(num_cpus=1)
    doomed = cluster.add_node(num_cpus=1)
    lost = []

    def on_message(heard):
        epochs = [message for message in heard if isinstance(message, EpochFinished)]
        if not lost and len(epochs) == 2:  # both nodes are at work
            lost.append(doomed)
            cluster.remove_node(doomed, allow_graceful=False)
            assert one_dies([int(message.record.metrics["pid"]) for message in epochs])
            Path("go").touch()

    with opened(RayExecutor(cluster.address), loops.waiting_for_go) as session:
        submit(session, *trials)
        messages = drain(session, on_message)
    assert lost
    assert len(begun(messages)) == len(trials) + 1
    with opened(InlineExecutor(), loops.waiting_for_go) as inline:
        submit(inline, *trials)
        expected = drain(inline, lambda heard: None)
    assert records(messages) == records(expected)


def run(port):
    words = ["run", "study.toml", "--executor", "ray", "--address", f"127.0.0.1:{port}"]
    return subprocess.Popen(
        [sys.executable, "-m", "fairtrial", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def stored():
    with fairtrial.SQLStore("fairtrial.db") as store:
        return store.results(fairtrial.load("study.toml"))


def test_a_lost_cluster_is_one_line_and_the_same_command_goes_on(start, free_port):
    Path("study.toml").write_text(
        'name = "s"\nreference = "a"\nseeds = 4\n[training]\nloop = "fairtrial.testing:simulate"\nepochs = 4\n'
        "[params]\nsleep = 0.4\n[arms.a]\n"
    )
    cluster = start(num_cpus=1, gcs_server_port=free_port)
    command = run(free_port)
    deadline = time.monotonic() + PATIENCE
    while not (Path("fairtrial.db").exists() and any(result.outcome for result in stored())):
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1, err
    lines = [line for line in err.splitlines() if "lost" in line or "Ray" in line or "Traceback" in line]
    assert len(lines) == 1, err
    assert "the Ray cluster at" in lines[0]
    assert "rerun the command to resume" in lines[0]
    assert "aylet" not in out + err
    before = {result.trial: result for result in stored() if result.outcome}
    assert 0 < len(before) < 4
    start(num_cpus=1, gcs_server_port=free_port)
    command = run(free_port)
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, err
    after = {result.trial: result for result in stored()}
    assert [result.outcome for result in after.values()] == [Outcome.FINISHED] * 4
    assert {trial: after[trial] for trial in before} == before


def test_data_are_placed_once_a_node(start, make_study, tmp_path):
    cluster = start()
    caches = [tmp_path / "one", tmp_path / "two"]
    for cache in caches:
        cache.mkdir()
        cluster.add_node(num_cpus=2, env_vars={"FAIRTRIAL_CACHE": str(cache)})
    gathered = []

    def gather():
        gathered.append(1)
        return "the data"

    study = make_study(seeds=4, training={"epochs": 3, "loop": "loops:waiting_for_go"})

    def on_message(heard):
        if sum(isinstance(message, EpochFinished) for message in heard) == 4:  # all four slots are at work
            Path("go").touch()

    data = NodeData(gather, loops.put_in_cache)
    with opened(RayExecutor(cluster.address), loops.waiting_for_go, data=data) as session:
        submit(session, *plan(study))
        messages = drain(session, on_message)
    assert len({m.record.metrics["parent"] for m in messages if isinstance(m, EpochFinished)}) == 4
    assert gathered == [1]
    assert [(cache / "came").read_text() for cache in caches] == ["the data\n"] * 2


@pytest.mark.parametrize(
    ("address", "what"),
    {
        "127.0.0.1:{port}": r"^no Ray cluster answers at 127\.0\.0\.1:\d+; `ray start --head` on",
        "nonsense": r"^--address nonsense: must be auto, or HOST:PORT such as 10\.0\.0\.1:6379$",
        "ray://127.0.0.1:{port}": r"^--address ray://\S+: Ray's client can't carry what trials report; run this on a",
    }.items(),
)
def test_an_address_where_no_cluster_is_takes_one_line(address, what, free_port, monkeypatch):
    monkeypatch.setattr("fairtrial.executors.ray.cluster.PATIENCE", 0.5)
    executor = RayExecutor(address.format(port=free_port))
    with pytest.raises(FairtrialError, match=what) as caught:
        opened(executor, loops.good)
    assert "\n" not in str(caught.value)


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
