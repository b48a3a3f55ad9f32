"""How much of an activity's priority budget is used, so that it stays used after a takeover.

No table is rewritten: the column is empty at first, which means that nothing is used.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009_0005"
down_revision = "0008_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this version."""
    op.add_column("activities", sa.Column("budgets", sa.Text(), nullable=True))
