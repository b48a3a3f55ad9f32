"""The first schema, frozen: what SQLAlchemy made of it for each database is in the files beside."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this version."""
    statements = Path(__file__).with_name(f"0001_{op.get_context().dialect.name}.sql")
    for statement in statements.read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)
