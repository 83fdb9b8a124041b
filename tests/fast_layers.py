"""Fast layers and the plain ones that they replace, held against each other: what several suites share."""

import copy

import pytest
import torch
from torch import nn

from fairtrial.training.kernels import layers, library
from fairtrial.training.models.mobilenet_v2.flavors import OneSidedConv2d

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def needs_kernels():
    if library.load(torch.float32) is None:
        pytest.skip(library.path())


def images(*shape, dtype=torch.float64, seed=0, requires_grad=False):
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return values.contiguous(memory_format=torch.channels_last).requires_grad_(requires_grad)


def scramble(module, seed=1):
    """Give every parameter and buffer a value that a wrong formula would show."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
            with torch.no_grad():
                tensor.copy_(noise.abs() + 0.5 if name.endswith(("running_var", "1.weight")) else noise)
    return module


def distance(found, expected, scale=1e-3):
    """Largest difference relative to the largest value, or to a scale if that is larger."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(scale)).item()


def assert_same(fast, plain, inputs, tolerance=None):
    """Hold outputs, all gradients and all buffers of two modules against each other.

    Gradients are compared relative to the largest of them. That of a bias before another norm is a sum of terms of that
    size which cancel, so next to nothing but their rounding may be left of it.
    """
    tolerance = tolerance or TOLERANCE[inputs.dtype]
    results = []
    for module in (fast, plain):
        given = inputs.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        output = module(given)
        weights = images(*output.shape, dtype=output.dtype, seed=7) if output.dim() == 4 else torch.ones_like(output)
        (output * weights).sum().backward()
        gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
        results.append(
            {"output": output.detach(), "input gradient": given.grad, **gradients, **dict(module.named_buffers())}
        )
    found, expected = results
    assert found.keys() == expected.keys()
    largest = max((value.abs().max().item() for value in gradients.values() if value is not None), default=0.0)
    for name, value in expected.items():
        if value is None or not value.is_floating_point():
            assert (found[name] is None and value is None) or torch.equal(found[name], value), name
        else:
            scale = max(largest, 1e-3) if name in gradients else 1e-3
            assert distance(found[name], value, scale) < tolerance, name


def pair(plain):
    """A module and its accelerated copy."""
    plain = scramble(plain)
    return layers.accelerate(copy.deepcopy(plain)), plain


def block(stride=1, dtype=torch.float64, conv=nn.Conv2d, norm=nn.BatchNorm2d, channels=(5, 24, 11)):
    """An inverted residual block without its residual: odd widths, so that every tail of a vector is met."""
    inputs, hidden, outputs = channels
    padding = 0 if conv is OneSidedConv2d else 1
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), norm(hidden), nn.ReLU6(inplace=True)),
        nn.Sequential(
            conv(hidden, hidden, 3, stride, padding, groups=hidden, bias=False), norm(hidden), nn.ReLU6(inplace=True)
        ),
        nn.Conv2d(hidden, outputs, 1, bias=False),
        norm(outputs),
    ).to(dtype)
