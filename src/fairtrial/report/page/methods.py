"""A methods paragraph to paste into a paper, with its citations; it claims only what the records show."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import fairtrial
from fairtrial.measures import measure
from fairtrial.report.page.fixed import proved
from fairtrial.report.page.items import listed
from fairtrial.report.page.origin import machines
from fairtrial.report.settings import write
from fairtrial.report.words import count, percent
from fairtrial.spec import BUILT_IN, Study
from fairtrial.stats.claims import StudyClaims
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.trial import Outcome, TrialResult

_WORKS = {
    "adam": "D. P. Kingma and J. Ba. Adam: a method for stochastic optimization. ICLR, 2015. arXiv:1412.6980.",
    "adamw": "I. Loshchilov and F. Hutter. Decoupled weight decay regularization. ICLR, 2019. arXiv:1711.05101.",
    "mobilenet_v2": (
        "M. Sandler, A. Howard, M. Zhu, A. Zhmoginov and L.-C. Chen. MobileNetV2: inverted residuals and linear "
        "bottlenecks. CVPR, 2018. arXiv:1801.04381."
    ),
    "resnet": "K. He, X. Zhang, S. Ren and J. Sun. Deep residual learning for image recognition. CVPR, 2016.",
    "cifar10": "A. Krizhevsky. Learning multiple layers of features from tiny images. Technical report, 2009.",
    "cifar100": "A. Krizhevsky. Learning multiple layers of features from tiny images. Technical report, 2009.",
    "mnist": "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner. Gradient-based learning applied to document recognition. "
    "Proceedings of the IEEE 86(11), 1998.",
    "torch": (
        "A. Paszke et al. PyTorch: an imperative style, high-performance deep learning library. NeurIPS, 2019. "
        "arXiv:1912.01703."
    ),
    "repeated": (
        "C. Jennison and B. W. Turnbull. Interim analyses: the repeated confidence interval approach. Journal of the "
        "Royal Statistical Society B 51(3), 305-361, 1989."
    ),
    "dunnett": (
        "C. W. Dunnett. A multiple comparison procedure for comparing several treatments with a control. Journal of "
        "the American Statistical Association 50, 1096-1121, 1955."
    ),
    "welch": (
        "B. L. Welch. The generalization of Student's problem when several different population variances are "
        "involved. Biometrika 34, 28-35, 1947."
    ),
}

#: Cites works by their keys, of which unknown ones are left out: " [1, 2]".
Cite: TypeAlias = Callable[..., str]


def methods(
    study: Study, results: Sequence[TrialResult], found: StudyVerdict, claims: StudyClaims | None
) -> tuple[str, tuple[str, ...]]:
    """Write the paragraph, with numbers in brackets, and the works that they stand for.

    It says that arms shared initial weights and batch order only where fingerprints of every trial prove it.
    """
    cited: dict[str, int] = {}

    def cite(*keys: str) -> str:
        numbers = [cited.setdefault(key, len(cited) + 1) for key in keys if key in _WORKS]
        return f" [{', '.join(map(str, numbers))}]" if numbers else ""

    if any(result.outcome is not None for result in results):
        trained, analyzed = _training(study, results, cite), _statistics(study, results, found, claims, cite)
        text = " ".join([*trained, *analyzed, *_software(study, results, cite)])
    else:
        text = "No run has ended yet."
    works = tuple(f"[{number}] {_WORKS[key]}" for key, number in cited.items())
    own = f"fairtrial {fairtrial.__version__}: controlled comparisons of training settings. Software, MIT license."
    return text, (*works, f"[{len(cited) + 1}] {own}")


def _training(study: Study, results: Sequence[TrialResult], cite: Cite) -> Iterator[str]:
    arms = f"{count(len(study.arms), 'configuration')} ({listed([arm.name for arm in study.arms], 12)})"
    if study.imported is not None:
        yield f"We compared {arms} on runs that were made elsewhere and read from {study.imported.source}."
        return
    first = study.arms[0].settings
    own = all(arm.settings.training.loop == BUILT_IN for arm in study.arms)
    if not own:
        yield f"We compared {arms}, trained by a loop of our own ({study.arms[0].settings.training.loop})."
    else:
        parts = {
            section: {getattr(arm.settings, section).name for arm in study.arms}
            for section in ("model", "data", "optimizer")
        }
        model, data, optimizer = (_entries(parts[key], cite) for key in ("model", "data", "optimizer"))
        same_epochs = len({arm.settings.training.epochs for arm in study.arms}) == 1
        lasting = f" for {count(first.training.epochs, 'epoch')}" if same_epochs else ""
        size = {arm.settings.training.batch_size for arm in study.arms}
        batches = f" in batches of {first.training.batch_size}" if len(size) == 1 else ""
        rates = {getattr(arm.settings.optimizer, "lr", None) for arm in study.arms}
        rate = f" at a learning rate of {write(next(iter(rates)))}" if len(rates) == 1 and None not in rates else ""
        yield f"We trained {model} on {data} with {optimizer}{rate}{lasting}{batches}, and compared {arms}."
    ended = [result for result in results if result.outcome is not None]
    seeds = sorted({result.seed for result in ended})
    yield f"{count(len(ended), 'training run')} ended, over {count(len(seeds), 'seed')}."
    lost = {
        outcome: sum(result.outcome is outcome for result in ended) for outcome in (Outcome.DIVERGED, Outcome.FAILED)
    }
    if any(lost.values()):
        told = " and ".join(f"{number} {outcome.value}" for outcome, number in lost.items() if number)
        yield f"Of these, {told}; they count against their arm instead of being left out."
    if shared := proved(study, results):
        yield (
            f"At each seed all arms began with the same {listed(shared)}, which digests that every run recorded show."
            if shared == ("initial weights",)
            else f"At each seed all arms had the same {listed(shared)}, which digests that every run recorded show."
        )
    elif study.evidence.unpaired is not True and len(study.arms) > 1:
        yield "Runs of one seed number were compared with each other; that they shared anything else was not recorded."


def _entries(names: set[str], cite: Cite) -> str:
    return listed([f"{name}{cite(name)}" for name in sorted(names)], 6)


def _statistics(
    study: Study, results: Sequence[TrialResult], found: StudyVerdict, claims: StudyClaims | None, cite: Cite
) -> Iterator[str]:
    label = measure(found.metric).label
    if not found.comparisons:
        yield f"The measure is {label}."
        return
    beforehand = ", set before there were results" if found.set_beforehand and not found.exploratory else ""
    way = "by differences within seeds" if found.paired else "by differences of means between unpaired runs"
    intervals = _intervals(found, cite) if any(row.interval is not None for row in found.comparisons) else ""
    yield f"Arms were compared with {found.against} on {label}{beforehand}, {way}{intervals}."
    if found.margin is not None:
        yield f"Differences within {found.unit.amount(found.margin)} were taken not to matter."
    if study.sequential:
        yield (
            f"By plan an arm gets {study.min_seeds} to {study.seeds} seeds and stops once its verdict is settled; "
            f"{_seeds_run(study, results)} run."
        )
    if claims is not None and claims.claims:
        were = "claims were" if len(claims.claims) > 1 else "claim was"
        rate = percent(claims.alpha)
        yield f"{len(claims.claims)} {were} tested, at an error rate of {rate} for all of them together."
    if found.exploratory:
        yield f"The comparison is exploratory: {'; '.join(found.exploratory)}."


def _intervals(found: StudyVerdict, cite: Cite) -> str:
    level = percent(1 - found.interval_alpha)
    if not found.paired:
        return f", with {level} confidence intervals{cite('welch')} that are simultaneous over all arms"
    several = len(found.comparisons) > 1
    together = "all arms and all planned looks" if len(found.looks) > 1 else "all arms" if several else "one arm"
    works = [*(["repeated"] if len(found.looks) > 1 else []), *(["dunnett"] if several else [])]
    return f", with {level} confidence intervals that are simultaneous over {together}{cite(*works)}"


def _seeds_run(study: Study, results: Sequence[TrialResult]) -> str:
    """Count the seeds of each arm whose run has ended: ``3 to 8 were``."""
    ended = [len({one.seed for one in results if one.arm == arm.name and one.outcome}) for arm in study.arms]
    low, high = min(ended), max(ended)
    return f"{low} to {high} were" if low < high else f"{low} {'was' if low == 1 else 'were'}"


def _software(study: Study, results: Sequence[TrialResult], cite: Cite) -> Iterator[str]:
    trained = machines(results)
    if study.imported is None and trained:
        versions = {each.versions.get("torch") for each in trained}
        torch = listed(sorted(version for version in versions if version), 3)
        fair = listed(sorted({each.versions["fairtrial"] for each in trained if "fairtrial" in each.versions}), 3)
        where = listed(
            list(dict.fromkeys(each.processor if each.device == "cpu" else each.device for each in trained)), 3
        )
        pieces = [*([f"fairtrial {fair}"] if fair else []), *([f"PyTorch {torch}{cite('torch')}"] if torch else [])]
        if pieces or where:
            yield f"Training used {' with '.join(pieces) or 'the study’s own code'}{f' on {where}' if where else ''}."
    yield f"The analysis is that of fairtrial {fairtrial.__version__}."
