"""Alembic's entry point: runs the migrations on the connection that `upgrade` passes."""

from alembic import context

from apns_live.activities.store.schema import apps

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=apps.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
