"""The first release's tables: where every migration begins. There is nothing before them to come from."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Do nothing."""
