"""What of settings decides a training run, and the digests of it by which studies and trials are known."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fairtrial.spec.overrides import flatten
from fairtrial.spec.settings import Settings

#: Raise it whenever the same settings come to mean another training run, so that no old trial is taken for a new one.
FORMAT = 1


def is_name(weights: str) -> bool:
    """Tell a name of published weights from a path; a file of such a name can be written as ``./keras:mine.h5``.

    Example:
        >>> is_name("keras:imagenet"), is_name("weights/mine.pt")
        (True, False)
    """
    return weights.startswith(("torchvision:", "keras:"))


def content(settings: Settings) -> dict[str, Any]:
    """Everything in settings that decides a training run: all but the paths of files and how often it is saved.

    A key that a later version added is left out at its default, so that the hashes of older studies stay.
    """
    table = settings.model_dump(mode="json")
    for name, section in vars(settings).items():
        if later_keys := getattr(section, "later_keys", None):
            for key in later_keys.difference(section.changed_later_keys()):
                del table[name][key]
    del table["data"]["path"], table["training"]["checkpoint_seconds"]
    if table["model"].get("weights_sha256") and not is_name(table["model"]["weights"]):  # a name says more than a file
        del table["model"]["weights"]
    return table


def digest(table: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a table written as JSON with sorted keys and no spaces."""
    return hashlib.sha256(_json(table).encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def same(one: object, other: object) -> bool:
    """Tell whether two values of a setting are one, to the digest and to a training loop: 1, 1.0 and true are three."""
    return one == other and _json(one) == _json(other)


def differing(own: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the dotted keys in which two tables of settings differ.

    Example:
        >>> differing({"params": {"depth": 1, "width": 2}}, {"params": {"depth": 1.0, "width": 2}})
        ('params.depth',)
    """
    sections = [key for key in {**own, **other} if not same(own.get(key), other.get(key))]
    own, other = (dict(flatten({key: one[key] for key in sections if key in one})) for one in (own, other))
    differ = [key for key in {**own, **other} if not same(own.get(key), other.get(key))]
    return tuple(key for key in differ if not isinstance(own.get(key, other.get(key)), Mapping))  # no empty table
