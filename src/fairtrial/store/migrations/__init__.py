"""Bringing a database of an earlier release to the tables of this one, by Alembic, step by step.

One step a version, in ``versions``, whose revision is the number of the version that it leads to. What has been
released is never changed again.
"""

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def upgrade(connection: Connection, version: int, to: int) -> None:
    """Take the steps from one version to another, in the connection's open transaction.

    Args:
        connection: to the database; nobody else may change its tables meanwhile.
        version: of its tables now.
        to: of its tables afterwards.
    """
    scripts = ScriptDirectory(Path(__file__).parent)
    steps = reversed(list(scripts.iterate_revisions(str(to), str(version))))
    with Operations.context(MigrationContext.configure(connection)):
        for step in steps:
            step.module.upgrade()
