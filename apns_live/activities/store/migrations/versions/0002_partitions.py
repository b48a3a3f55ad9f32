"""Partitions with their leases, and notifications about tokens for other processes.

On PostgreSQL no table is rewritten: a column with a constant default is added at once. Existing
rows belong to partition 0 and disappear within a day.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the tables to this version."""
    for table in ("activities", "operations"):
        op.add_column(
            table, sa.Column("partition", sa.SmallInteger(), server_default="0", nullable=False)
        )
    op.create_table(
        "leases",
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("partition", name=op.f("pk_leases")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "token_changes",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("origin", sa.String(length=64), nullable=False),
        sa.Column("activity_id", _ROW_ID, nullable=False),
        sa.Column("token", sa.String(length=512), nullable=True),
        sa.Column("behind", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_changes")),
    )
    op.create_index(op.f("ix_token_changes_created_at"), "token_changes", ["created_at"])
