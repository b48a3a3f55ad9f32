"""Broadcast channels that the service makes itself, and which of a device's cards a token belongs to.

No table is rewritten: every column is empty at first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006_0005"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this version."""
    op.add_column("activities", sa.Column("channel_asked_at", sa.BigInteger(), nullable=True))
    op.add_column("channels", sa.Column("deleting_at", sa.BigInteger(), nullable=True))
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("channels", sa.Column("activity_id", row_id, nullable=True))
    for name in ("card", "replaced_card"):
        op.add_column("activity_devices", sa.Column(name, sa.String(length=64), nullable=True))
