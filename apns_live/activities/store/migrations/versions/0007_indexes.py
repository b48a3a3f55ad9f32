"""Indexes: outcomes by device, and the channels that the service makes itself.

A migration with ``indexes`` builds them and does nothing else: on PostgreSQL other processes write
meanwhile.
"""

from alembic import op

revision = "0007_0005"
down_revision = "0006_0005"
branch_labels = None
depends_on = None

indexes = (
    "ix_outcomes_device_id_id ON outcomes (device_id, id)",
    "ix_activities_channel ON activities (app_id, channel_id) WHERE channel_id IS NOT NULL",
    "ix_activities_channel_asked ON activities (channel_asked_at) "
    "WHERE channel_asked_at IS NOT NULL AND channel_id IS NULL",
    "ix_channels_own ON channels (id) WHERE activity_id IS NOT NULL AND deleted_at IS NULL",
)


def upgrade() -> None:
    """Bring the tables to this version."""
    for index in indexes:
        op.execute(f"CREATE INDEX IF NOT EXISTS {index}")
