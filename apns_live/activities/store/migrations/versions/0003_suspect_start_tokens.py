"""Starts that a phone does not answer, counted at its start token.

Columns and indexes are added, and nothing else changes: on PostgreSQL no table is rewritten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MISSING = (
    "missing_reported_at IS NOT NULL AND start_settled_at IS NULL "
    "AND token IS NULL AND retired_at IS NULL"
)


def upgrade() -> None:
    """Bring the tables to this version."""
    op.add_column(
        "start_tokens", sa.Column("unanswered", sa.Integer(), server_default="0", nullable=False)
    )
    for table, name in (
        ("start_tokens", "suspect_at"),
        ("start_tokens", "cleared_at"),
        ("activity_devices", "start_settled_at"),
    ):
        op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=True))
    for index, table, columns, where in (
        (
            "ix_start_tokens_suspect",
            "start_tokens",
            ["app_id", "attributes_type", "retired_at", "id"],
            "suspect_at IS NOT NULL",
        ),
        ("ix_activity_devices_still_missing", "activity_devices", ["started_at"], _MISSING),
    ):
        few = sa.text(where)
        op.create_index(op.f(index), table, columns, sqlite_where=few, postgresql_where=few)
