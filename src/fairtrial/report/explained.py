"""What the numbers of optimizers mean, as text and JSON."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fairtrial.explain import AdamStep, Average, Explanation, Rates, adam_step
from fairtrial.report.settings import write
from fairtrial.spec import Study
from fairtrial.text import one_line

_AVERAGES = (
    "An average reaches back over its horizon, 1 / (1 - decay) steps: there the weight of a gradient has fallen to "
    "37%. It is full once its bias towards 0, where it starts, is below 1%. Adam divides by 1 - decay^step, which "
    "takes the bias out; the table has what that multiplies by."
)
_EPSILON = (
    "torch, optax and the paper's algorithm 1 add epsilon to the root of the corrected average of squares; Keras and "
    "TensorFlow add it to the root of the uncorrected one. A row has the two numbers that do the same at that step. No "
    "constant does the same at every step: to match a long run write the last row's, to match the start the first's. "
    "In torch's column, epsilon halves the step of a weight whose gradients have that root mean square. By default it "
    "is 1e-8 in torch and optax, 1e-7 in Keras."
)
_RMSPROP = (
    "torch adds RMSprop's epsilon to the root; Keras adds it under the root, where about the square does the same."
)


def explanation_text(study: Study, explanations: Sequence[Explanation], width: int = 80) -> str:
    """Write explanations for a screen of so many columns."""
    lines = [study.label, *(part for note in _before_tuning(study) for part in _wrapped(note, width, ""))]
    for one in explanations:
        lines += ["", *_wrapped(", ".join(map(one_line, one.arms)), width, ""), *_wrapped(_settings(one), width)]
        for sentence in _sentences(one):
            lines += _wrapped(sentence, width)
        if one.adam:
            lines += ["", *_table(one.adam)]
    notes = [_AVERAGES] if any(one.averages for one in explanations) else []
    notes += [_EPSILON] if any(one.adam for one in explanations) else []
    notes += [_RMSPROP] if any(one.optimizer.name == "rmsprop" for one in explanations) else []
    for note in notes:
        lines += ["", *_wrapped(note, width, "")]
    return "\n".join(lines)


def explanation_json(study: Study, explanations: Sequence[Explanation]) -> str:
    """Write the same for other programs. Keys may be added, never renamed or removed."""
    table = {"study": study.name, "hash": study.hash, "explanations": [_plain(one) for one in explanations]}
    return json.dumps(table, indent=2, allow_nan=False)


def _before_tuning(study: Study) -> Iterator[str]:
    """Say which of the numbers are not yet those that arms will be compared with."""
    if study.tuning is not None and study.untuned:
        spaces = [study.tuning.space_of(arm.name) for arm in study.arms]
        keys = sorted({one_line(key) for space in spaces for key in space})
        yield f"As written, before tuning: each arm will be compared with its best {', '.join(keys)}."


def _plain(one: Explanation) -> dict[str, Any]:
    return {
        "arms": list(one.arms),
        "optimizer": one.optimizer.model_dump(mode="json"),
        "steps_per_epoch": one.steps_per_epoch,
        "steps": one.steps,
        "learning_rates": [
            {**vars(rates), "arms": list(rates.arms), "schedule": rates.schedule.model_dump(mode="json")}
            for rates in one.rates
        ],
        "averages": [asdict(average) for average in one.averages],
        "adam": [asdict(step) for step in one.adam],
    }


def _settings(one: Explanation) -> str:
    keys = one.optimizer.model_dump(exclude={"name"}).items()
    return f"{one_line(one.optimizer.name)}: " + ", ".join(f"{key} {one_line(write(value))}" for key, value in keys)


def _sentences(one: Explanation) -> Iterator[str]:
    yield f"steps: {one.steps_per_epoch:,} an epoch, {one.steps:,} in all"
    for rates in one.rates:
        of = "" if len(rates.arms) == len(one.arms) else f" of {', '.join(map(one_line, rates.arms))}"
        yield f"learning rate{of} ({one_line(rates.schedule.name)}): {_course(rates)}"
    told = {arm for rates in one.rates for arm in rates.arms}
    if stepped := [one_line(arm) for arm in one.arms if arm not in told]:
        yield f"learning rate of {', '.join(stepped)}: its scheduler tells only as it is stepped"
    for average in one.averages:
        yield _average(average, one)
    if one.adam:
        yield _other_convention(one)


def _course(rates: Rates) -> str:
    watched = f", lower once {one_line(rates.schedule.watched)} stops improving" if rates.schedule.watched else ""
    if rates.first == rates.highest == rates.last:
        return f"{_short(rates.first)} throughout{watched}"
    rise = f"{_short(rates.first)} at step 1, " if rates.first < rates.highest else ""
    return f"{rise}{_short(rates.highest)} at step {rates.highest_at:,}, {_short(rates.last)} at the last{watched}"


def _average(average: Average, one: Explanation) -> str:
    horizon, full = (f"{steps:,.0f} steps{_epochs(steps, one)}" for steps in (average.horizon, average.full_after))
    head = f"{average.key} = {write(average.decay)}: "
    if average.key == "momentum" and not average.of:
        return f"{head}steps add up over about {horizon}, steady ones to {average.horizon:,.3g} times one"
    never = ", after the end of this training" if average.full_after > one.steps else ""
    of = f"average of {average.of}" if average.of else "an average"
    return f"{head}{of}, over about {horizon}; full after {full}{never}"


def _epochs(steps: float, one: Explanation) -> str:
    epochs = steps / one.steps_per_epoch
    return f" ({epochs:.1f} epochs)" if epochs >= 0.1 else ""


def _other_convention(one: Explanation) -> str:
    """What the number would be, were it meant in the other convention."""
    betas, eps, convention = (getattr(one.optimizer, key) for key in ("betas", "eps", "eps_convention"))
    other, ours = ("Keras", "torch") if convention == "torch" else ("torch", "Keras")
    read = [adam_step(at.step, betas, eps, other.lower()) for at in (one.adam[0], one.adam[-1])]
    first, last = (_short(at.torch_eps if ours == "torch" else at.keras_eps) for at in read)
    return (
        f"eps = {write(eps)}: as {other} would read this number, it is {ours}'s {first} at step 1 and {last} at step "
        f"{one.steps:,}"
    )


def _table(steps: Sequence[AdamStep]) -> Iterator[str]:
    above = ("", "correction of", "", "epsilon as in", "")
    heads = (above, ("step", "gradients", "squares", "torch, optax", "Keras, TF"))
    rows = [
        (f"{one.step:,}", _factor(one.first), _factor(one.second), _short(one.torch_eps), _short(one.keras_eps))
        for one in steps
    ]
    widths = [max(len(row[column]) for row in (*heads, *rows)) for column in range(5)]
    for row in (*heads, *rows):
        yield ("    " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))).rstrip()


def _factor(value: float) -> str:
    return f"{value:,.3f}" if value < 100 else f"{value:,.0f}"


def _short(value: float) -> str:
    return write(float(f"{value:.3g}"))


def _wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, max(width, 40), initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )
