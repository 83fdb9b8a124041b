"""From a study to its trials. Pure."""

from fairtrial.records import Trial
from fairtrial.spec import Study


def plan(study: Study) -> tuple[Trial, ...]:
    """List a study's trials so that whole seeds finish first.

    A study that is cut short then still compares all arms on the seeds it has: three arms at two seeds say more than
    one arm at five and another at one.

    Args:
        study: the study; arms keep its order.

    Returns:
        ``seeds * len(arms)`` trials.
    """
    return tuple(Trial(arm.name, seed, arm.settings) for seed in range(study.seeds) for arm in study.arms)
