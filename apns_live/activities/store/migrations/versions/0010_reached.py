"""Outcomes of several devices in one row: their row ids, and the smallest and largest of them.

The columns are empty at first, which means that an outcome is one device's. The release before sees such a row as
one outcome of a device that was deleted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010_0005"
down_revision = "0009_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this version."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("outcomes", sa.Column("devices", sa.LargeBinary(), nullable=True))
    op.add_column("outcomes", sa.Column("first_device", row_id, nullable=True))
    op.add_column("outcomes", sa.Column("last_device", row_id, nullable=True))
