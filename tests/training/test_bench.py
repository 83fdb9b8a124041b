"""Measuring a machine: what is measured, and that it adds up. No time is asserted."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from fairtrial.report.costs import bench_text, to_json
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import bench
from fairtrial.training.kernels import assistance


def test_the_matrix_products_of_a_step():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 16, 1, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    shapes = [tuple(product().shape) for product in bench.matrix_products(network, torch.ones(2, 3, 4, 4))]
    assert shapes == [(32, 8), (8, 27), (8, 16), (16, 8), (8, 8), (2, 5), (5, 16), (2, 16)]
    rounded = bench.matrix_products(network, torch.ones(2, 3, 4, 4), torch.bfloat16)
    assert {product().dtype for product in rounded} == {torch.bfloat16}


@pytest.mark.slow
def test_the_json_is_a_contract():
    table = {
        "name": "s",
        "reference": "a",
        "arms": {"a": {}},
        "data": {"name": "digits"},
        "model": {"width": 0.25},
    }
    measured = bench.bench(Study.from_dict(table), rounds=1, cores=2)
    told = json.loads(to_json(measured))
    assert {"plain", "fast", "matmul_ms", "step_over_matmul", "overhead_share", "worker_private_bytes", "path"} <= set(
        told
    )
    assert set(told["plain"]) == set(told["fast"]) == set(told["helped"]) == {"step_ms", "images_per_second"}
    assert told["cores"] == 2
    assert told["fast"]["images_per_second"] == pytest.approx(64 / told["fast"]["step_ms"] * 1e3)
    assert told["step_over_matmul"] == pytest.approx(told["fast"]["step_ms"] / told["matmul_ms"])
    assert 0 < told["overhead_share"] < 1
    assert told["worker_private_bytes"] is None or told["worker_private_bytes"] > 1e6
    assert "matrix products" in bench_text(measured)
    assert "with 2 cores" in bench_text(measured)
    assert "with 2 cores" not in bench_text(replace(measured, helped=None, cores=1))
    assert assistance.cores() == 1


def test_the_overhead_of_a_study_that_holds_images_out():
    """The split comes off the whole set, not off an explicit number of training images."""
    data = {"name": "digits", "train": 20, "validation": 40, "test": 10}
    study = Study(name="s", reference="a", arms={"a": {}}, data=data, model={"width": 0.1})
    assert study.settings.data.train_images == 20
    assert 0 < bench.overhead(plan(study)[0], steps=1) < 1
