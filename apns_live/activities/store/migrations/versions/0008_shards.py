"""Shards: parts of a large start or notification, which any worker may claim.

A table is added, and no other is touched. A worker that takes over work of the previous release
cuts it into shards.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008_0005"
down_revision = "0007_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this version."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "shards",
        sa.Column("id", row_id, autoincrement=True, nullable=False),
        sa.Column("operation_id", row_id, nullable=False),
        sa.Column("after", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("devices", sa.LargeBinary(), nullable=True),
        sa.Column("owner", sa.String(64), server_default="", nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("expires_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.id"],
            name=op.f("fk_shards_operation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shards")),
    )
    op.create_index(op.f("ix_shards_operation_id_id"), "shards", ["operation_id", "id"])
    op.create_index(op.f("ix_shards_expires_at"), "shards", ["expires_at"])
