"""Kernels that several threads compute: the same bits as by one, always."""

import copy
import multiprocessing
import sys
import threading
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import nn

from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import loop
from fairtrial.training.kernels import assistance, layers, library
from fairtrial.training.learner import Learner
from fairtrial.training.models.mobilenet_v2.flavors import BiasedBatchNorm2d, OneSidedConv2d
from fairtrial.trial import TrialContext
from fast_layers import block, images, needs_kernels, scramble


@pytest.fixture(autouse=True)
def one_thread():
    needs_kernels()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assistance.use_cores(1)


@contextmanager
def with_cores(number):
    assistance.use_cores(number)
    try:
        yield
    finally:
        assistance.use_cores(1)


def stem(inputs=3):
    """A dense convolution of a whole image, the norm behind it and a depthwise one."""
    return nn.Sequential(
        nn.Conv2d(inputs, 32, 3, 2, 1, bias=True), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    )  # fmt: skip


def windows_inside():
    """Windows behind a norm, and a convolution without one: gradients of biases, and of windows that overlap."""
    return nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 30, 5, 1, 2), nn.Conv2d(30, 11, 1))


def apart():
    """A norm alone, and windows that leave pixels out."""
    return nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, 4, 1, groups=3, bias=False))


def keras():
    return block(2, conv=OneSidedConv2d, norm=BiasedBatchNorm2d, channels=(3, 40, 13))


MODULES = {
    "narrow block": lambda: block(channels=(3, 24, 11)),
    "wide block": lambda: block(channels=(3, 144, 40)),
    "block of stride 2": lambda: block(2, channels=(3, 100, 7)),
    "keras's block": keras,
    "stem": stem,
    "windows inside": windows_inside,
    "windows apart": apart,
    "norm alone": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU6()),
}
#: Maps and batches in which there are one block of pixels and many, whole images and rows, and odd ends.
SIZES = {
    "one pixel": (70, 1),
    "two": (33, 2),
    "three": (129, 3),
    "eight": (64, 8),
    "many": (61, 17),
    "one image": (1, 40),
}


def results(module, inputs, cores):
    """Everything that two training steps' passes of a copy of a module make."""
    module, made = layers.accelerate(copy.deepcopy(module)), []
    with with_cores(cores):
        for _ in range(2):
            given = inputs.detach().clone(memory_format=torch.preserve_format).requires_grad_()
            module.zero_grad()
            output = module(given)
            (output * images(*output.shape, dtype=output.dtype, seed=5)).sum().backward()
            made += [output.detach(), given.grad, *(parameter.grad for parameter in module.parameters())]
            made += [buffer.clone() for buffer in module.buffers()]
    return made


def assert_same_bits(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float", "double"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", MODULES)
def test_more_threads_give_the_same_bits(kind, size, training, dtype):
    batch, side = SIZES[size]
    module = scramble(MODULES[kind]()).to(dtype).train(training)
    inputs = images(batch, 3, side, side, dtype=dtype)
    expected = results(module, inputs, 1)
    for cores in (2, 3):
        for _ in range(3):  # which thread computes what differs from time to time
            assert_same_bits(results(module, inputs, cores), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float", "double"])
def test_products_of_any_shape_have_the_same_bits_in_every_thread(dtype):
    """BLAS may compute a product otherwise in a thread that has other settings: long and narrow ones show it."""
    for inputs, outputs in ((30, 11), (7, 50), (64, 3)):
        module = scramble(nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Conv2d(outputs, 5, 1))).to(dtype)
        values = images(64, inputs, 16, 16, dtype=dtype)
        expected = results(module, values, 1)
        for _ in range(10):
            assert_same_bits(results(module, values, 3), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float", "double"])
def test_products_without_blas_have_them_too(dtype, monkeypatch):
    compiled = library.Kernels(dtype)
    monkeypatch.setattr(compiled, "_product", None)
    monkeypatch.setattr(library, "load", lambda dtype: compiled)
    module, inputs = scramble(block(channels=(3, 40, 11))).to(dtype), images(63, 3, 9, 9, dtype=dtype)
    assert_same_bits(results(module, inputs, 2), results(module, inputs, 1))


def test_helpers_take_part(monkeypatch):
    """Or all of this would say nothing."""
    if sys.platform != "linux":
        pytest.skip("threads are counted as Linux shows them")
    module, inputs = scramble(block(channels=(3, 96, 24))).float(), images(64, 3, 16, 16, dtype=torch.float32)
    for _ in range(200):
        results(module, inputs, 4)
        if sum(seconds_of(task) > 0 for task in Path("/proc/self/task").iterdir()) >= 3:  # this thread and two others
            return
    pytest.fail("no helping thread has done anything")


def seconds_of(task):
    fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_callers_side_by_side_do_not_disturb_each_other():
    module, inputs = scramble(block(channels=(3, 96, 24))), images(16, 3, 16, 16)
    expected, found = results(module, inputs, 1), [[], []]
    assistance.use_cores(3)

    def call(made):
        own = layers.accelerate(copy.deepcopy(module))
        for _ in range(20):
            made.append(own(inputs).detach())

    callers = [threading.Thread(target=call, args=(made,)) for made in found]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for made in found:
        assert torch.equal(made[0], expected[0])


def test_a_fork_has_one_core_and_can_compute():
    module, inputs = scramble(block(channels=(3, 96, 24))), images(16, 3, 16, 16)
    expected = results(module, inputs, 2)
    assistance.use_cores(2)
    forking = multiprocessing.get_context("fork")
    queue = forking.SimpleQueue()

    def child():
        alone = assistance.cores()
        queue.put((alone, [torch.equal(*both) for both in zip(results(module, inputs, 2), expected, strict=True)]))

    process = forking.Process(target=child)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        pytest.fail("a fork waits for threads that it does not have")
    assert queue.get() == (1, [True] * len(expected))


@pytest.mark.parametrize("number", [0, -3])
def test_there_is_always_one_core(number):
    assistance.use_cores(number)
    assert assistance.cores() == 1


def test_a_trial_is_the_same_if_cores_come_and_go_between_its_steps(monkeypatch):
    study = Study.from_dict(
        {
            "name": "s", "reference": "a", "seeds": 1, "arms": {"a": {}},
            "data": {"name": "digits", "train": 300, "test": 100},
            "model": {"name": "mobilenet_v2", "width": 0.35},
            "training": {"epochs": 2, "batch_size": 32, "recalibrate_batch_norm": True},
        }
    )  # fmt: skip
    [trial] = plan(study)

    def epochs():
        context = TrialContext(trial)
        return [
            {name: value for name, value in record.items() if not name.endswith("_seconds")}
            for record in loop.train(context)
        ], dict(context.fingerprints)

    alone = epochs()
    assert not any("helped_seconds" in record for record in loop.train(TrialContext(trial)))
    step, numbers = Learner.step, cycle((2, 1, 3, 2, 1, 1))

    def step_with_other_cores(learner, inputs, labels):
        assistance.use_cores(next(numbers))
        return step(learner, inputs, labels)

    monkeypatch.setattr(Learner, "step", step_with_other_cores)
    assert epochs() == alone
    assert all(0 < record["helped_seconds"] < 600 for record in loop.train(TrialContext(trial)))


def test_seconds_with_help_are_counted(monkeypatch):
    now = 100.0
    monkeypatch.setattr(assistance, "monotonic", lambda: now)
    before = assistance.helped_seconds()
    for cores, seconds in ((1, 5.0), (2, 3.0), (3, 4.0), (1, 9.0), (2, 1.0)):
        assistance.use_cores(cores)
        now += seconds
    assert assistance.helped_seconds() - before == 8.0
    assistance.use_cores(1)
    now += 1.0
    assert assistance.helped_seconds() - before == 8.0
