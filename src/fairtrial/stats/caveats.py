"""Caveats of a whole study: what was held fixed, how the metric was chosen, what is missing."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from fairtrial.measures import measure
from fairtrial.spec import BUILT_IN, Settings, Study
from fairtrial.stats.paired import PairedData
from fairtrial.stats.tuned import is_tuned, tuned_to
from fairtrial.trial import Outcome, TrialResult

#: Parameters that may be the learning rate of a user's own training loop.
_RATES = ("lr", "learning_rate")


def held_fixed(study: Study, results: Iterable[TrialResult] = ()) -> tuple[str, ...]:
    """Name what arms were tuned to, and the settings that they share and that could have mattered, the rate first.

    The number of epochs is the one that finished trials recorded, and is not named if they differ in it. Of a user's
    own training loop fairtrial knows only the epochs, the parameters, and the sections in which its arms differ; it may
    ignore the rest of the study.

    Example:
        >>> held_fixed(fairtrial.load("quick"))[0]
        'The learning rate was 0.001 for every arm; with a rate tuned for each arm, verdicts could differ.'
    """
    if study.imported is not None:  # nothing is known of what they share
        return ()
    arms = [arm.settings for arm in study.arms]
    recorded = {one.epochs[-1].epoch for one in results if one.outcome is Outcome.FINISHED and one.epochs}
    parts = [
        part for part in (_epochs(arms, recorded), _batch(arms), _schedule(arms), _data(arms), _model(arms)) if part
    ]
    tuned = tuned_to(study)
    rate = None if is_tuned(study, "optimizer.lr", *(f"params.{key}" for key in _RATES)) else _learning_rate(arms)
    also = f"{'Also the' if rate or tuned else 'The'} same for every arm: {', '.join(parts)}." if parts else None
    return tuple(sentence for sentence in (tuned, rate, also) if sentence)


def of_metric(metric: str) -> tuple[str, ...]:
    """Give a metric's own note, if it has one."""
    note = measure(metric).note
    return (note,) if note else ()


def of_records(study: Study, data: PairedData) -> Iterator[str]:
    """Say which results are missing for all arms, and which source of noise was held fixed."""
    if number := len(data.pending):
        yield f"{number} trial{' has' if number == 1 else 's have'} not ended: interrupted, or still running."
    if data.unreported and not data.values:
        yield "No finished trial reported this metric."
    elif data.unreported:
        named = ", ".join(f"{arm} seed {seed}" for arm, seed in sorted(data.unreported)[:3])
        more = ", ..." if len(data.unreported) > 3 else ""
        yield f"Finished without reporting this metric: {named}{more}."
    shared = {"set of initial weights": study.noise.initial_weights, "batch order": study.noise.batch_orders}
    for what, varied in shared.items():
        if varied == 1:
            yield f"All seeds share one {what}: the verdicts hold for that one only."


def _learning_rate(arms: Sequence[Settings]) -> str | None:
    rates = [arm.optimizer.lr for arm in arms] if _uses(arms, lambda settings: settings.optimizer) else []
    rates = rates or [rate for arm in arms for key in _RATES if isinstance(rate := arm.params.get(key), float)]
    if len(rates) != len(arms) or len(set(rates)) > 1:
        return None
    return f"The learning rate was {rates[0]:g} for every arm; with a rate tuned for each arm, verdicts could differ."


def _epochs(arms: Sequence[Settings], recorded: Collection[int]) -> str | None:
    epochs = {arm.training.epochs for arm in arms}
    found = recorded if recorded and len(epochs) == 1 else epochs
    number = min(found)
    return f"{number} epoch{'' if number == 1 else 's'}" if len(found) == 1 else None


def _batch(arms: Sequence[Settings]) -> str | None:
    sizes = {arm.training.batch_size for arm in arms}
    return f"batch size {min(sizes)}" if len(sizes) == 1 and _uses(arms, lambda arm: arm.training) else None


def _schedule(arms: Sequence[Settings]) -> str | None:
    first = arms[0].schedule
    if any(arm.schedule != first for arm in arms) or not _uses(arms, lambda arm: arm.schedule):
        return None
    warmup = f" after {first.warmup_epochs:g} epochs of warm-up" if first.warmup_epochs else ""
    return f"a {first.name} schedule{warmup}"


def _data(arms: Sequence[Settings]) -> str | None:
    first = arms[0].data
    differ = any(arm.data.model_dump(exclude={"path"}) != first.model_dump(exclude={"path"}) for arm in arms)
    if differ or not _uses(arms, lambda arm: arm.data):
        return None
    train, test = first.train_images, first.test_images
    if (train, test) in {first.size, (None, None)}:
        return f"all of {first.label}"
    if train is None or test is None:
        return f"data of {first.label}"
    return f"{train:,} training and {test:,} test images of {first.label}"


def _model(arms: Sequence[Settings]) -> str | None:
    first = arms[0].model
    same = all(arm.model == first for arm in arms)
    return first.label if same and _uses(arms, lambda arm: arm.model) else None


def _uses(arms: Sequence[Settings], section: Callable[[Settings], object]) -> bool:
    """Tell whether the training loops use a section: fairtrial's own does, and so does one whose arms differ in it."""
    return all(arm.training.loop == BUILT_IN for arm in arms) or len({repr(section(arm)) for arm in arms}) > 1
