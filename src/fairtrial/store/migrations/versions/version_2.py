"""Where a study was read from, with which overrides; the last transaction of each writer."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add them."""
    op.add_column("studies", sa.Column("source", sa.Text()))
    op.add_column("studies", sa.Column("assignments", sa.JSON()))
    op.create_table(
        "fairtrial_writers",
        sa.Column("writer", sa.String(32), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
