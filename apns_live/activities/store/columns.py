"""The columns that many tables share, and how a table and its indexes are declared."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)
from sqlalchemy.schema import SchemaItem

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite auto-increments a 64-bit row id only in a column of the exact type INTEGER PRIMARY KEY.
RowId = BigInteger().with_variant(Integer(), "sqlite")


def table(name: str, *parts: SchemaItem, **options: Any) -> Table:
    """Return a table with an auto-incremented row id."""
    row_id = Column("id", RowId, primary_key=True, autoincrement=True)
    return Table(name, metadata, row_id, *parts, **options)


def app_id() -> Column[int]:
    """Return the column for the app that owns a row."""
    return Column("app_id", RowId, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False)


def app_id_of_parent() -> Column[int]:
    """Return the column for the app of a row that a device, activity or operation owns.

    It has no foreign key: the owner implies one, and PostgreSQL would look it up for every row,
    which is a fifth of the cost of a start or a registration.
    """
    return Column("app_id", RowId, nullable=False)


def few(name: str, *columns: str, where: str) -> Index:
    """Return an index over the few rows for which ``where`` holds; other rows cost it nothing."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def partition() -> Column[int]:
    """Return the column for a row's partition, whose owner sends. See store/ownership."""
    return Column("partition", SmallInteger, nullable=False, server_default="0")


def device_id() -> Column[int]:
    """Return the column for the device that owns a row."""
    return Column("device_id", RowId, ForeignKey("devices.id", ondelete="CASCADE"), nullable=False)


def token() -> tuple[Column[Any], ...]:
    """Return the columns of a device's token; ``retired_reason`` says why it gets no more pushes."""
    return (
        Column("environment", String(16), nullable=False),
        Column("token", String(512), nullable=False),
        Column("registered_at", BigInteger, nullable=False),
        Column("retired_at", BigInteger),
        Column("retired_reason", String(64)),
    )
