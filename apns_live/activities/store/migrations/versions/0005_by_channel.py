"""Which devices of an activity follow its channel; until now all of them did.

The column is added with a constant default, so on PostgreSQL no table is rewritten; then the
existing cards on a channel are marked.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this version."""
    column: sa.Column[bool] = sa.Column(
        "by_channel", sa.Boolean(), server_default="0", nullable=False
    )
    op.add_column("activity_devices", column)
    members = sa.table(
        "activity_devices", sa.column("activity_id"), sa.column("by_channel", sa.Boolean())
    )
    activities = sa.table(
        "activities", sa.column("id"), sa.column("channel_id"), sa.column("retired_at")
    )
    followed = sa.select(activities.c.id).where(
        activities.c.channel_id.is_not(None), activities.c.retired_at.is_(None)
    )
    op.execute(
        sa.update(members).where(members.c.activity_id.in_(followed)).values(by_channel=True)
    )
