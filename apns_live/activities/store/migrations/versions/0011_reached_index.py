"""An index: outcomes of several devices in one row, by their app."""

from alembic import op

revision = "0011_0005"
down_revision = "0010_0005"
branch_labels = None
depends_on = None

indexes = (
    "ix_outcomes_reached ON outcomes (app_id, id, first_device, last_device) "
    "WHERE devices IS NOT NULL",
)


def upgrade() -> None:
    """Bring the tables to this version."""
    for index in indexes:
        op.execute(f"CREATE INDEX IF NOT EXISTS {index}")
