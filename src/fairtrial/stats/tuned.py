"""What a verdict says of arms that were tuned: to what, on what budget, and where a range was too narrow."""

from collections.abc import Iterator

from fairtrial.spec import Study
from fairtrial.spec.messages import show
from fairtrial.spec.tuning import Range


def tuned_to(study: Study) -> str | None:
    """Say what each arm was tuned to, and on what budget; None of a study without ``[tuning]``."""
    tuning = study.tuning
    if tuning is None or not tuning.found:
        return None
    number, seeds = tuning.budget(study.reference), tuning.seeds.max
    budget = f"{number} value{'' if number == 1 else 's'} of each ({tuning.sampler})"
    at = f"{seeds} seed{'' if seeds == 1 else 's'} that the comparison does not use"
    arms = "; ".join(
        f"{arm.name} to {', '.join(f'{key} = {show(value)}' for key, value in tuning.found[arm.name].items())}"
        for arm in study.arms
        if arm.name in tuning.found
    )
    lost = "".join(
        f" {count} of the {number} of {name} gave no number, for they diverged or failed, and counted as the worst."
        for name, count in tuning.lost.items()
    )
    return f"Each arm was tuned by {tuning.metric}, on the validation split: {budget}, at {at}. {arms}.{lost}"


def is_tuned(study: Study, *keys: str) -> bool:
    """Whether one of these keys was tuned, of every arm."""
    found = {} if study.tuning is None else study.tuning.found or {}
    return bool(found) and any(all(key in values for values in found.values()) for key in keys)


def tuning_alerts(study: Study) -> Iterator[str]:
    """Say where a best value is at the edge of its range, so that a better one may be beyond, and what was mixed."""
    tuning = study.tuning
    found = (tuning and tuning.found) or {}
    if tuning is not None and tuning.mixed:
        mixed = ", ".join(tuning.mixed)
        yield f"Tuning trials ran under other conditions than others ({mixed}), by which values may have won."
    for arm in study.arms:
        for key, value in found.get(arm.name, {}).items():
            assert tuning is not None
            one = tuning.space_of(arm.name)[key]
            if one.at_edge(value):
                yield (
                    f"{arm.name}: the best {key}, {show(value)}, is at the edge of what was tried ({_range(one)}): a "
                    "wider range may have a better one, and change its verdict."
                )


def _range(one: Range) -> str:
    if one.values is not None:
        return ", ".join(map(show, one.values))
    return f"{one.ends[0]:g} to {one.ends[1]:g}"
