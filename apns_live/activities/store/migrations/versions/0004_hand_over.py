"""Hand-over: when a card is replaced, and the pending end of the previous card.

No table is rewritten: every column is empty at first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this version."""
    for name in ("hand_over_after", "hand_over_at"):
        op.add_column("activities", sa.Column(name, sa.BigInteger(), nullable=True))
    for name in ("handed_over_at", "handed_over_version", "replaced_at", "replaced_ending_at"):
        op.add_column("activity_devices", sa.Column(name, sa.BigInteger(), nullable=True))
    token = sa.Column("replaced_token", sa.String(length=512), nullable=True)
    op.add_column("activity_devices", token)
    op.create_index(
        op.f("ix_activities_status_hand_over_at"), "activities", ["status", "hand_over_at"]
    )
    owed = sa.text("replaced_ending_at IS NOT NULL")
    op.create_index(
        "ix_activity_devices_replaced",
        "activity_devices",
        ["replaced_ending_at"],
        sqlite_where=owed,
        postgresql_where=owed,
    )
