"""What commands read from the store, and how they name a study again."""

import shlex
from collections.abc import Mapping

from fairtrial import loading
from fairtrial.cli.options import (
    DEFAULT_STORE,
)
from fairtrial.errors import StoreMissingError
from fairtrial.spec import Study
from fairtrial.store.base import StoredStudy
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import redact_url
from fairtrial.trial import TrialResult


def read_results(study: str, assignments: list[str] | None, store: str) -> tuple[Study, list[TrialResult]]:
    """Find a study that was run, and read what is known of its trials."""
    with SQLStore(store, create=False) as opened:
        found = loading.find_to_read(study, assignments or [], opened.studies())
        return found, opened.results(found)


def stored_studies(store: str) -> list[StoredStudy]:
    """List the studies in a store; none if there is no store yet."""
    try:
        with SQLStore(store, create=False) as opened:
            return opened.studies()
    except StoreMissingError:
        return []


def command_line(
    verb: str, study: str, assignments: list[str] | None, store: str, options: Mapping[str, object]
) -> str:
    """Write the command line that does something with the same study in the same store."""
    words = ["fairtrial", verb, study]
    words += [word for assignment in assignments or [] for word in ("--set", assignment)]
    words += ["--store", redact_url(store)] if store != DEFAULT_STORE else []
    words += [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join(words)
