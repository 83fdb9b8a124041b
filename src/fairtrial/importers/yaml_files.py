"""Read the YAML files that loggers leave, without making any object that they name."""

from pathlib import Path
from typing import Any

from fairtrial.errors import RunsError
from fairtrial.files import read_bounded
from fairtrial.spec.messages import brief

_LARGEST = 2**20


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a file with one table; what a tag would make an object of is None, and tuples are lists.

    Raises:
        RunsError: the file is damaged, too large, or has no table.
    """
    import yaml  # noqa: PLC0415

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        """Makes plain values only."""

        def flatten_mapping(self, node: Any) -> None:
            """Merge no tables into others: a small file could grow without end."""

    Loader.add_multi_constructor("", lambda _loader, _tag, _node: None)
    Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node))
    try:
        table = yaml.load(read_bounded(path, _LARGEST), Loader)  # noqa: S506  (a safe loader, which knows fewer tags)
    except OSError as error:
        raise RunsError(f"{brief(str(path), 200)}: {error.strerror or error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RunsError(f"{brief(str(path), 200)}: is no YAML file, or a damaged one") from error
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise RunsError(f"{brief(str(path), 200)}: has no table of names and values")
    return {str(key): value for key, value in table.items()}
