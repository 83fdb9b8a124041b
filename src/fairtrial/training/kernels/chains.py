"""Triton programs for a GPU: a depthwise convolution with the norms before and after it, forward and backward.

`programs` says how the work is divided.
"""

from __future__ import annotations

from fairtrial.training.kernels.programs import (
    activate,
    activate_backward,
    add_to_moments,
    all_moments,
    jit,
    load_all,
    merge_moments,
    moments,
    norm_inputs,
    norm_sums,
    normalize,
    recall,
    running,
    settle,
    store_pair,
    tl,
)


@jit
def _convolve(
    x, weight, rows, valid, columns, inside, factor, summand, C,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, STRIDE: tl.constexpr, TOP: tl.constexpr,
    LEFT: tl.constexpr, BEFORE: tl.constexpr, ACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Convolve at some output pixels; normalize and activate the input on the way if `BEFORE`."""
    image = rows // (OH * OW)
    top = (rows // OW) % OH * STRIDE - TOP
    left = rows % OW * STRIDE - LEFT
    total = tl.zeros((BP, BC), tl.float32)
    for tap in tl.static_range(9):
        row = top + tap // 3
        column = left + tap % 3
        there = valid & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        mask = there[:, None] & inside[None, :]
        places = ((image * H + row) * W + column)[:, None] * C + columns[None, :]
        values = tl.load(x + places, mask=mask, other=0.0)
        if BEFORE:
            values = tl.where(mask, activate(values * factor[None, :] + summand[None, :], ACT), 0.0)
        total += values * tl.load(weight + columns * 9 + tap, mask=inside, other=0.0)[None, :]
    return total


@jit
def chain_forward(
    x, z, y, weight, scale1, shift1, mean1, var1, scale2, shift2, mean2, var2, saved, partial, C,
    pixels_in, pixels_out, chunk_in, chunk_out, eps1, momentum1, correction1, eps2, momentum2, correction2,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, STRIDE: tl.constexpr, TOP: tl.constexpr,
    LEFT: tl.constexpr, BEFORE: tl.constexpr, ACT1: tl.constexpr, ACT2: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr, SPLITS: tl.constexpr, SLOTS: tl.constexpr, FROM: tl.constexpr, TO: tl.constexpr,
):  # fmt: skip
    """Norm and activation if `BEFORE`, depthwise 3x3 convolution to z, norm and activation to y.

    Phases: 0 moments of x, 1 convolution and moments of z, 2 results.
    """
    split = tl.program_id(1)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = columns < C
    first_in = split * chunk_in
    last_in = tl.minimum(first_in + chunk_in, pixels_in)
    first = split * chunk_out
    last = tl.minimum(first + chunk_out, pixels_out)
    factor = tl.zeros((BC,), tl.float32)
    summand = tl.zeros((BC,), tl.float32)
    if BEFORE and FROM == 0:
        mean, m2 = moments(x, first_in, last_in, columns, inside, C, BP, BC)
        if SPLITS > 1:
            store_pair(partial, mean, m2, split, columns, inside, C, SPLITS)
    if FROM <= 1 and TO >= 1:
        if BEFORE:
            if SPLITS > 1:
                mean, m2 = all_moments(partial, columns, inside, C, pixels_in, chunk_in, SPLITS, SLOTS)
            factor, summand = settle(
                mean, m2, pixels_in, scale1, shift1, mean1, var1, saved, columns, inside, split == 0, C,
                eps1, momentum1, correction1,
            )  # fmt: skip
        mean = tl.zeros((BP, BC), tl.float32)
        m2 = tl.zeros((BP, BC), tl.float32)
        count = tl.zeros((BP, 1), tl.float32)
        for start in range(first, last, BP):
            rows = start + tl.arange(0, BP)
            valid = rows < last
            tile = _convolve(
                x, weight, rows, valid, columns, inside, factor, summand, C,
                H, W, OH, OW, STRIDE, TOP, LEFT, BEFORE, ACT1, BP, BC,
            )  # fmt: skip
            tl.store(z + rows[:, None] * C + columns[None, :], tile, mask=valid[:, None] & inside[None, :])
            mean, m2, count = add_to_moments(mean, m2, count, tile, valid)
        mean, m2 = merge_moments(mean, m2, count, tl.maximum(last - first, 1).to(tl.float32))
        if SPLITS > 1:
            store_pair(partial + 2 * SPLITS * C, mean, m2, split, columns, inside, C, SPLITS)
    if TO == 2:
        tl.debug_barrier()  # other threads of this program have written what these read
        if SPLITS > 1:
            mean, m2 = all_moments(
                partial + 2 * SPLITS * C, columns, inside, C, pixels_out, chunk_out, SPLITS, SLOTS
            )  # fmt: skip
        factor, summand = settle(
            mean, m2, pixels_out, scale2, shift2, mean2, var2, saved + 2 * C, columns, inside, split == 0, C,
            eps2, momentum2, correction2,
        )  # fmt: skip
        normalize(z, y, factor, summand, first, last, columns, inside, C, ACT2, BP)


@jit
def chain_evaluate(
    x, y, weight, scale1, shift1, mean1, var1, scale2, shift2, mean2, var2, C, pixels, eps1, eps2,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, STRIDE: tl.constexpr, TOP: tl.constexpr,
    LEFT: tl.constexpr, BEFORE: tl.constexpr, ACT1: tl.constexpr, ACT2: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """`chain_forward` by the running averages; a program for each tile."""
    columns = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = columns < C
    factor = tl.zeros((BC,), tl.float32)
    summand = tl.zeros((BC,), tl.float32)
    if BEFORE:
        factor, summand = running(scale1, shift1, mean1, var1, columns, inside, eps1)
    rows = tl.program_id(0) * BP + tl.arange(0, BP)
    valid = rows < pixels
    tile = _convolve(
        x, weight, rows, valid, columns, inside, factor, summand, C,
        H, W, OH, OW, STRIDE, TOP, LEFT, BEFORE, ACT1, BP, BC,
    )  # fmt: skip
    factor, summand = running(scale2, shift2, mean2, var2, columns, inside, eps2)
    places = rows[:, None] * C + columns[None, :]
    result = activate(tile * factor[None, :] + summand[None, :], ACT2)
    tl.store(y + places, result, mask=valid[:, None] & inside[None, :])


@jit
def _tap(
    dz, weight, image, row, column, valid, columns, inside, values, gradient, total, C,
    TAP: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """Add one tap's part to the gradients of some input pixels and of its own weight."""
    down = row - TAP // 3
    right = column - TAP % 3
    there = valid & (down >= 0) & (right >= 0) & (down < OH * STRIDE) & (right < OW * STRIDE)
    if STRIDE > 1:
        there = there & (down % STRIDE == 0) & (right % STRIDE == 0)
    places = ((image * OH + down // STRIDE) * OW + right // STRIDE)[:, None] * C + columns[None, :]
    d = tl.load(dz + places, mask=there[:, None] & inside[None, :], other=0.0)
    gradient += d * tl.load(weight + columns * 9 + TAP, mask=inside, other=0.0)[None, :]
    return gradient, total + d * values


@jit
def _store_tap(dweight, partial, total, split, columns, inside, C, TAP: tl.constexpr, SPLITS: tl.constexpr):
    """Store the gradient of one tap's weights, or this program's part of it."""
    if SPLITS > 1:
        tl.store(partial + (TAP * SPLITS + split) * C + columns, tl.sum(total, 0), mask=inside)
    else:
        tl.store(dweight + columns * 9 + TAP, tl.sum(total, 0), mask=inside)


@jit
def _input_gradients(
    dz, x, dx, weight, dweight, partial, mean, inverse, factor, summand, first, last, split, columns, inside, C,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, STRIDE: tl.constexpr, TOP: tl.constexpr,
    LEFT: tl.constexpr, BEFORE: tl.constexpr, ACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    SPLITS: tl.constexpr,
):  # fmt: skip
    """Gradients of the convolution's input and weights, and the sums that the norm before it needs."""
    plain = tl.zeros((BP, BC), tl.float32)
    scaled = tl.zeros((BP, BC), tl.float32)
    w0 = tl.zeros((BP, BC), tl.float32)
    w1, w2, w3, w4, w5, w6, w7, w8 = w0, w0, w0, w0, w0, w0, w0, w0
    for start in range(first, last, BP):
        rows = start + tl.arange(0, BP)
        valid = rows < last
        image = rows // (H * W)
        row = (rows // W) % H + TOP
        col = rows % W + LEFT
        places = rows[:, None] * C + columns[None, :]
        mask = valid[:, None] & inside[None, :]
        raw = tl.load(x + places, mask=mask, other=0.0)
        f = raw
        if BEFORE:
            f = tl.where(mask, activate(raw * factor[None, :] + summand[None, :], ACT), 0.0)
        g = tl.zeros((BP, BC), tl.float32)
        g, w0 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w0, C, 0, OH, OW, STRIDE)
        g, w1 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w1, C, 1, OH, OW, STRIDE)
        g, w2 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w2, C, 2, OH, OW, STRIDE)
        g, w3 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w3, C, 3, OH, OW, STRIDE)
        g, w4 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w4, C, 4, OH, OW, STRIDE)
        g, w5 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w5, C, 5, OH, OW, STRIDE)
        g, w6 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w6, C, 6, OH, OW, STRIDE)
        g, w7 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w7, C, 7, OH, OW, STRIDE)
        g, w8 = _tap(dz, weight, image, row, col, valid, columns, inside, f, g, w8, C, 8, OH, OW, STRIDE)
        if BEFORE:
            g = activate_backward(raw * factor[None, :] + summand[None, :], g, ACT)
            plain += g
            scaled += g * ((raw - mean[None, :]) * inverse[None, :])
        tl.store(dx + places, g, mask=mask)
    _store_tap(dweight, partial, w0, split, columns, inside, C, 0, SPLITS)
    _store_tap(dweight, partial, w1, split, columns, inside, C, 1, SPLITS)
    _store_tap(dweight, partial, w2, split, columns, inside, C, 2, SPLITS)
    _store_tap(dweight, partial, w3, split, columns, inside, C, 3, SPLITS)
    _store_tap(dweight, partial, w4, split, columns, inside, C, 4, SPLITS)
    _store_tap(dweight, partial, w5, split, columns, inside, C, 5, SPLITS)
    _store_tap(dweight, partial, w6, split, columns, inside, C, 6, SPLITS)
    _store_tap(dweight, partial, w7, split, columns, inside, C, 7, SPLITS)
    _store_tap(dweight, partial, w8, split, columns, inside, C, 8, SPLITS)
    return tl.sum(plain, 0), tl.sum(scaled, 0)


@jit
def chain_backward(
    dy, x, z, dz, dx, weight, dweight, scale1, shift1, dscale1, dshift1, scale2, shift2, dscale2, dshift2, saved,
    partial, C, pixels_in, pixels_out, chunk_in, chunk_out,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, STRIDE: tl.constexpr, TOP: tl.constexpr,
    LEFT: tl.constexpr, BEFORE: tl.constexpr, ACT1: tl.constexpr, ACT2: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr, SPLITS: tl.constexpr, SLOTS: tl.constexpr, FROM: tl.constexpr, TO: tl.constexpr,
):  # fmt: skip
    """Gradients of `chain_forward`.

    Phases: 0 sums for the norm of z, 1 gradient of z, 2 that of the activated x and of the weights, 3 that of x.
    """
    split = tl.program_id(1)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = columns < C
    first_in = split * chunk_in
    last_in = tl.minimum(first_in + chunk_in, pixels_in)
    first = split * chunk_out
    last = tl.minimum(first + chunk_out, pixels_out)
    if FROM <= 1:
        mean2, inverse2, factor2, summand2 = recall(scale2, shift2, saved + 2 * C, columns, inside, C)
    if FROM == 0:
        plain, scaled = norm_sums(
            dy, z, mean2, inverse2, factor2, summand2, first, last, columns, inside, C, ACT2, BP, BC
        )  # fmt: skip
        if SPLITS > 1:
            store_pair(partial, plain, scaled, split, columns, inside, C, SPLITS)
    if FROM <= 1 and TO >= 1:
        if SPLITS > 1:
            plain = tl.sum(load_all(partial, columns, inside, C, SPLITS, SLOTS), 0)
            scaled = tl.sum(load_all(partial + SPLITS * C, columns, inside, C, SPLITS, SLOTS), 0)
        tl.store(dshift2 + columns, plain, mask=inside & (split == 0))
        tl.store(dscale2 + columns, scaled, mask=inside & (split == 0))
        norm_inputs(
            dy, z, dz, mean2, inverse2, factor2, summand2, plain, scaled, pixels_out, first, last, columns, inside, C,
            ACT2, BP,
        )  # fmt: skip
    mean1 = tl.zeros((BC,), tl.float32)
    inverse1, factor1, summand1 = mean1, mean1, mean1
    if BEFORE and TO >= 2:
        mean1, inverse1, factor1, summand1 = recall(scale1, shift1, saved, columns, inside, C)
    if FROM <= 2 and TO >= 2:
        tl.debug_barrier()  # other threads of this program have written what these read
        plain, scaled = _input_gradients(
            dz, x, dx, weight, dweight, partial + 4 * SPLITS * C, mean1, inverse1, factor1, summand1, first_in, last_in,
            split, columns, inside, C, H, W, OH, OW, STRIDE, TOP, LEFT, BEFORE, ACT1, BP, BC, SPLITS,
        )  # fmt: skip
        if SPLITS > 1:
            store_pair(partial + 2 * SPLITS * C, plain, scaled, split, columns, inside, C, SPLITS)
    if TO == 3:
        if SPLITS > 1:
            plain = tl.sum(load_all(partial + 2 * SPLITS * C, columns, inside, C, SPLITS, SLOTS), 0)
            scaled = tl.sum(load_all(partial + 3 * SPLITS * C, columns, inside, C, SPLITS, SLOTS), 0)
            if split == 0:
                for tap in range(9):
                    parts = load_all(partial + (4 + tap) * SPLITS * C, columns, inside, C, SPLITS, SLOTS)
                    tl.store(dweight + columns * 9 + tap, tl.sum(parts, 0), mask=inside)
        if BEFORE:
            tl.debug_barrier()
            tl.store(dshift1 + columns, plain, mask=inside & (split == 0))
            tl.store(dscale1 + columns, scaled, mask=inside & (split == 0))
            # What `dx` holds has passed the activation backward already.
            norm_inputs(
                dx, x, dx, mean1, inverse1, factor1, summand1, plain, scaled, pixels_in, first_in, last_in, columns,
                inside, C, 0, BP,
            )  # fmt: skip
