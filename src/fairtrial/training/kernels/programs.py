"""Triton programs for a GPU: batch norm with its activation, forward and backward, and what `chains` needs of it.

Images are rows of pixels with their channels beside each other (channels last). A program owns a block of channels.
Where a map is small it goes over all pixels of the batch, phase after phase, in one launch; where it is large, the
pixels are divided among `SPLITS` programs, a launch does one phase (`FROM` equals `TO`), and the next one combines what
the programs have found. Sums are taken in a fixed order and nothing is atomic: each run gives the same bits.

The module can be imported without Triton, but then nothing in it can be called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    tl: Any
    jit: Any
else:
    try:
        import triton.language as tl
        from triton import jit
    except ImportError:
        tl, jit = None, lambda function: function


@jit
def activate(values, ACT: tl.constexpr):
    """Apply no activation (0), ReLU (1) or ReLU6 (2). A value that is no number stays so, as in torch."""
    if ACT >= 1:
        values = tl.where(values <= 0.0, 0.0, values)
    if ACT == 2:
        values = tl.where(values >= 6.0, 6.0, values)
    return values


@jit
def activate_backward(values, gradient, ACT: tl.constexpr):
    """Gradient of what an activation got, from that of what it gave."""
    if ACT >= 1:
        gradient = tl.where(values <= 0.0, 0.0, gradient)
    if ACT == 2:
        gradient = tl.where(values >= 6.0, 0.0, gradient)
    return gradient


@jit
def add_to_moments(mean, m2, count, values, valid):
    """Add a tile of values to running moments, each place its own (Welford 1962)."""
    weight = valid.to(tl.float32)[:, None]
    count += weight
    delta = tl.where(valid[:, None], values - mean, 0.0)
    mean += delta * (weight / tl.maximum(count, 1.0))
    m2 += delta * (values - mean)
    return mean, m2, count


@jit
def merge_moments(mean, m2, count, total):
    """Merge the moments of all rows of a tile (Chan, Golub and LeVeque 1983)."""
    merged = tl.sum(mean * count, 0) / total
    apart = mean - merged[None, :]
    return merged, tl.sum(m2 + apart * apart * count, 0)


@jit
def moments(values, first, last, columns, inside, C, BP: tl.constexpr, BC: tl.constexpr):
    """Mean, and sum of squared distances from it, of each channel over some pixels."""
    mean = tl.zeros((BP, BC), tl.float32)
    m2 = tl.zeros((BP, BC), tl.float32)
    count = tl.zeros((BP, 1), tl.float32)
    for start in range(first, last, BP):
        rows = start + tl.arange(0, BP)
        valid = rows < last
        places = rows[:, None] * C + columns[None, :]
        tile = tl.load(values + places, mask=valid[:, None] & inside[None, :], other=0.0)
        mean, m2, count = add_to_moments(mean, m2, count, tile, valid)
    return merge_moments(mean, m2, count, tl.maximum(last - first, 1).to(tl.float32))


@jit
def store_pair(partial, one, two, split, columns, inside, C, SPLITS: tl.constexpr):
    """Store two numbers a channel that a program has found in its pixels."""
    tl.store(partial + split * C + columns, one, mask=inside)
    tl.store(partial + (SPLITS + split) * C + columns, two, mask=inside)


@jit
def load_all(partial, columns, inside, C, SPLITS: tl.constexpr, SLOTS: tl.constexpr):
    """Load what all programs have found; `SLOTS` is the next power of two."""
    rows = tl.arange(0, SLOTS)
    mask = (rows < SPLITS)[:, None] & inside[None, :]
    return tl.load(partial + rows[:, None] * C + columns[None, :], mask=mask, other=0.0)


@jit
def all_moments(partial, columns, inside, C, pixels, chunk, SPLITS: tl.constexpr, SLOTS: tl.constexpr):
    """Merge the moments that the programs have found in chunks of pixels."""
    mean = load_all(partial, columns, inside, C, SPLITS, SLOTS)
    m2 = load_all(partial + SPLITS * C, columns, inside, C, SPLITS, SLOTS)
    count = tl.minimum(tl.maximum(pixels - tl.arange(0, SLOTS) * chunk, 0), chunk).to(tl.float32)[:, None]
    return merge_moments(mean, m2, count, pixels.to(tl.float32))


@jit
def settle(
    mean, m2, pixels, scale, shift, running_mean, running_var, saved, columns, inside, first_split, C,
    eps, momentum, correction,
):  # fmt: skip
    """Turn moments into a factor and a summand for each channel; save statistics and move the running averages."""
    variance = m2 / pixels.to(tl.float32)
    inverse = 1.0 / tl.sqrt(variance + eps)
    once = inside & first_split
    tl.store(saved + columns, mean, mask=once)
    tl.store(saved + C + columns, inverse, mask=once)
    old_mean = tl.load(running_mean + columns, mask=once, other=0.0)
    old_variance = tl.load(running_var + columns, mask=once, other=0.0)
    tl.store(running_mean + columns, old_mean + momentum * (mean - old_mean), mask=once)
    tl.store(running_var + columns, old_variance + momentum * (variance * correction - old_variance), mask=once)
    factor = tl.load(scale + columns, mask=inside, other=0.0) * inverse
    return factor, tl.load(shift + columns, mask=inside, other=0.0) - mean * factor


@jit
def normalize(
    values, results, factor, summand, first, last, columns, inside, C, ACT: tl.constexpr, BP: tl.constexpr
):  # fmt: skip
    """Multiply, add and activate some pixels."""
    for start in range(first, last, BP):
        rows = start + tl.arange(0, BP)
        places = rows[:, None] * C + columns[None, :]
        mask = (rows < last)[:, None] & inside[None, :]
        tile = tl.load(values + places, mask=mask, other=0.0)
        tl.store(results + places, activate(tile * factor[None, :] + summand[None, :], ACT), mask=mask)


@jit
def recall(scale, shift, saved, columns, inside, C):
    """Mean, inverse deviation, factor and summand of a norm, from what its forward pass has saved."""
    mean = tl.load(saved + columns, mask=inside, other=0.0)
    inverse = tl.load(saved + C + columns, mask=inside, other=0.0)
    factor = tl.load(scale + columns, mask=inside, other=0.0) * inverse
    return mean, inverse, factor, tl.load(shift + columns, mask=inside, other=0.0) - mean * factor


@jit
def norm_sums(
    gradient, values, mean, inverse, factor, summand, first, last, columns, inside, C,
    ACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of a norm's shift and scale over some pixels: sums of u and of u times the normalized value."""
    plain = tl.zeros((BP, BC), tl.float32)
    scaled = tl.zeros((BP, BC), tl.float32)
    for start in range(first, last, BP):
        rows = start + tl.arange(0, BP)
        places = rows[:, None] * C + columns[None, :]
        mask = (rows < last)[:, None] & inside[None, :]
        tile = tl.load(values + places, mask=mask, other=0.0)
        u = tl.load(gradient + places, mask=mask, other=0.0)
        u = activate_backward(tile * factor[None, :] + summand[None, :], u, ACT)
        plain += u
        scaled += u * ((tile - mean[None, :]) * inverse[None, :])
    return tl.sum(plain, 0), tl.sum(scaled, 0)


@jit
def norm_inputs(
    gradient, values, results, mean, inverse, factor, summand, plain, scaled, pixels, first, last, columns, inside, C,
    ACT: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Gradient of a norm's input (Ioffe and Szegedy 2015, section 3), from the sums over all pixels."""
    plain = plain / pixels.to(tl.float32)
    scaled = scaled / pixels.to(tl.float32)
    for start in range(first, last, BP):
        rows = start + tl.arange(0, BP)
        places = rows[:, None] * C + columns[None, :]
        mask = (rows < last)[:, None] & inside[None, :]
        tile = tl.load(values + places, mask=mask, other=0.0)
        u = tl.load(gradient + places, mask=mask, other=0.0)
        u = activate_backward(tile * factor[None, :] + summand[None, :], u, ACT)
        u = u - plain[None, :] - ((tile - mean[None, :]) * inverse[None, :]) * scaled[None, :]
        tl.store(results + places, factor[None, :] * u, mask=mask)


@jit
def norm_forward(
    x, y, scale, shift, running_mean, running_var, saved, partial, C, pixels, chunk, eps, momentum, correction,
    ACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, SPLITS: tl.constexpr, SLOTS: tl.constexpr,
    FROM: tl.constexpr, TO: tl.constexpr,
):  # fmt: skip
    """Normalize by the batch's statistics. Phases: 0 moments, 1 results."""
    split = tl.program_id(1)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = columns < C
    first = split * chunk
    last = tl.minimum(first + chunk, pixels)
    if FROM == 0:
        mean, m2 = moments(x, first, last, columns, inside, C, BP, BC)
        if SPLITS > 1:
            store_pair(partial, mean, m2, split, columns, inside, C, SPLITS)
    if TO == 1:
        if SPLITS > 1:
            mean, m2 = all_moments(partial, columns, inside, C, pixels, chunk, SPLITS, SLOTS)
        factor, summand = settle(
            mean, m2, pixels, scale, shift, running_mean, running_var, saved, columns, inside, split == 0, C,
            eps, momentum, correction,
        )  # fmt: skip
        normalize(x, y, factor, summand, first, last, columns, inside, C, ACT, BP)


@jit
def norm_backward(
    dy, x, dx, scale, shift, saved, partial, dscale, dshift, C, pixels, chunk,
    ACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, SPLITS: tl.constexpr, SLOTS: tl.constexpr,
    FROM: tl.constexpr, TO: tl.constexpr,
):  # fmt: skip
    """Gradients of `norm_forward`. Phases: 0 sums, 1 gradient of the input."""
    split = tl.program_id(1)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = columns < C
    first = split * chunk
    last = tl.minimum(first + chunk, pixels)
    mean, inverse, factor, summand = recall(scale, shift, saved, columns, inside, C)
    if FROM == 0:
        plain, scaled = norm_sums(
            dy, x, mean, inverse, factor, summand, first, last, columns, inside, C, ACT, BP, BC
        )  # fmt: skip
        if SPLITS > 1:
            store_pair(partial, plain, scaled, split, columns, inside, C, SPLITS)
    if TO == 1:
        if SPLITS > 1:
            plain = tl.sum(load_all(partial, columns, inside, C, SPLITS, SLOTS), 0)
            scaled = tl.sum(load_all(partial + SPLITS * C, columns, inside, C, SPLITS, SLOTS), 0)
        tl.store(dshift + columns, plain, mask=inside & (split == 0))
        tl.store(dscale + columns, scaled, mask=inside & (split == 0))
        norm_inputs(
            dy, x, dx, mean, inverse, factor, summand, plain, scaled, pixels, first, last, columns, inside, C, ACT, BP
        )  # fmt: skip


@jit
def norm_evaluate(
    x, y, scale, shift, running_mean, running_var, C, pixels, eps,
    ACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Normalize by the running averages; a program for each tile."""
    columns = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = columns < C
    factor, summand = running(scale, shift, running_mean, running_var, columns, inside, eps)
    first = tl.program_id(0) * BP
    normalize(x, y, factor, summand, first, tl.minimum(first + BP, pixels), columns, inside, C, ACT, BP)


@jit
def running(scale, shift, running_mean, running_var, columns, inside, eps):
    """Factor and summand of a norm, from its running averages."""
    variance = tl.load(running_var + columns, mask=inside, other=1.0)
    factor = tl.load(scale + columns, mask=inside, other=0.0) / tl.sqrt(variance + eps)
    mean = tl.load(running_mean + columns, mask=inside, other=0.0)
    return factor, tl.load(shift + columns, mask=inside, other=0.0) - mean * factor
