"""The tables of the service, with the query that each index serves.

Rules for all tables, on SQLite and PostgreSQL:

- times are integers, milliseconds since 1970 (a 410 from APNs carries milliseconds, and a token's
  registration is compared with it);
- JSON is text: key order is the caller's, and PostgreSQL's ``jsonb`` would lose it;
- every row belongs to an app (``app_id``), and every index that a caller can reach starts with it,
  so that one app can never read another's rows;
- row ids grow, so pages are read by key (``id > :after ORDER BY id LIMIT :n``), never by OFFSET.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from .columns import (
    RowId,
    app_id,
    app_id_of_parent,
    device_id,
    few,
    metadata,
    partition,
    table,
    token,
)

SHARDED = "sharded"
"""The status of a start or notification with shards: callers see it as running.

The release of schema 0005 does not know shards, and skips an operation with a status that it does
not know.
"""

apps = table(
    "apps",
    Column("public_id", String(64), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("bundle_id", String(255), nullable=False),
    Column("environment", String(16), nullable=False),  # the default for tokens that name none
    Column("settings", Text, nullable=False, server_default="{}"),
    Column("created_at", BigInteger, nullable=False),
)

credentials = table(
    "credentials",
    app_id(),
    Column("environment", String(16), nullable=False),  # production, sandbox, or any (both)
    Column("team_id", String(10), nullable=False),
    Column("key_id", String(10), nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),  # encrypted; see store/sealing
    Column("active", Boolean, nullable=False, server_default="1"),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "environment", "key_id"),
)

users = table(
    "users",
    app_id(),
    Column("public_id", String(64), nullable=False),  # onesignal_id in that dialect
    Column("external_id", String(255)),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "public_id"),
    UniqueConstraint("app_id", "external_id"),
    sqlite_autoincrement=True,  # ids of deleted rows are never reused
)

user_aliases = table(
    "user_aliases",
    app_id(),
    Column("user_id", RowId, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("label", String(128), nullable=False),
    Column("value", String(255), nullable=False),
    UniqueConstraint("app_id", "label", "value"),
    Index(None, "user_id"),
)

devices = table(
    "devices",
    app_id(),
    Column("public_id", String(64), nullable=False),  # the subscription id
    Column("user_id", RowId, ForeignKey("users.id", ondelete="SET NULL")),
    Column("language", String(16)),
    Column("country", String(2)),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("app_version", String(64)),
    Column("app_version_order", String(128)),  # padded, so that text order is version order
    Column("os_version", String(32)),
    Column("first_session", BigInteger),
    Column("last_session", BigInteger),
    Column("session_count", Integer, nullable=False, server_default="0"),
    Column("session_time", BigInteger, nullable=False, server_default="0"),  # seconds
    Column("amount_spent", Float, nullable=False, server_default="0"),
    Column("push_enabled", Boolean, nullable=False, server_default="1"),
    Column("frequent_updates", Boolean),  # NULL: the app never reported it
    Column("secret_hash", LargeBinary),  # set if the device has its own credential
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "public_id"),
    Index(None, "user_id"),  # the devices of a user
    Index(None, "app_id", "language", "id"),
    Index(None, "app_id", "country", "id"),
    Index(None, "app_id", "app_version_order", "id"),
    Index(None, "app_id", "first_session", "id"),
    Index(None, "app_id", "last_session", "id"),
    sqlite_autoincrement=True,  # ids of deleted rows are never reused
)

attributes = table(  # tags and custom attributes of a device or user; one row per value
    "attributes",
    app_id(),
    Column("device_id", RowId, ForeignKey("devices.id", ondelete="CASCADE")),
    Column("user_id", RowId, ForeignKey("users.id", ondelete="CASCADE")),
    Column("namespace", String(8), nullable=False),  # tag, custom
    Column("name", String(128), nullable=False),
    Column("kind", String(8), nullable=False),  # string, number, boolean, date, array
    Column("position", Integer, nullable=False, server_default="0"),  # within an array
    Column("text", String(1024)),
    Column("number", Float),  # numbers; booleans as 0 and 1; dates as milliseconds
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("(device_id IS NULL) <> (user_id IS NULL)", name="one_subject"),
    UniqueConstraint("device_id", "namespace", "name", "position"),
    UniqueConstraint("user_id", "namespace", "name", "position"),
    Index(None, "app_id", "namespace", "name", "text", "device_id", "user_id"),
    Index(None, "app_id", "namespace", "name", "number", "device_id", "user_id"),
)

groups = table(
    "groups",
    app_id(),
    Column("slug", String(128), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "slug"),
)

group_members = table(  # a device, or a user with all of their devices
    "group_members",
    Column("group_id", RowId, ForeignKey("groups.id", ondelete="CASCADE"), nullable=False),
    Column("device_id", RowId, ForeignKey("devices.id", ondelete="CASCADE")),
    Column("user_id", RowId, ForeignKey("users.id", ondelete="CASCADE")),
    CheckConstraint("(device_id IS NULL) <> (user_id IS NULL)", name="one_subject"),
    UniqueConstraint("group_id", "device_id"),
    UniqueConstraint("group_id", "user_id"),
    Index(None, "device_id"),
    Index(None, "user_id"),
)

segments = table(
    "segments",
    app_id(),
    Column("public_id", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("filter", Text, nullable=False),  # a filter tree as JSON; see people/audience
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "public_id"),
    UniqueConstraint("app_id", "name"),
)

start_tokens = table(  # push-to-start: one per attributes type, device and environment
    "start_tokens",
    app_id_of_parent(),
    device_id(),
    Column("attributes_type", String(128), nullable=False),
    *token(),
    # Unanswered starts in a row, and when they made the token suspect; see people/suspects.
    Column("unanswered", Integer, nullable=False, server_default="0"),
    Column("suspect_at", BigInteger),
    Column("cleared_at", BigInteger),  # when an answer or a new token last set the count to 0
    UniqueConstraint("device_id", "attributes_type", "environment"),
    Index(None, "app_id", "attributes_type", "retired_at", "id"),  # all devices that can be started
    few(  # suspect tokens, which come last
        "ix_start_tokens_suspect",
        "app_id",
        "attributes_type",
        "retired_at",
        "id",
        where="suspect_at IS NOT NULL",
    ),
    Index(None, "app_id", "token"),  # a 410 has only the token
    few("ix_start_tokens_retired", "retired_at", where="retired_at IS NOT NULL"),  # pruning
)

device_tokens = table(  # ordinary alert pushes
    "device_tokens",
    app_id_of_parent(),
    device_id(),
    *token(),
    UniqueConstraint("device_id", "environment"),
    Index(None, "app_id", "environment", "retired_at", "id"),  # all devices that can be notified
    Index(None, "app_id", "token"),
    few("ix_device_tokens_retired", "retired_at", where="retired_at IS NOT NULL"),  # pruning
)

activities = table(
    "activities",
    app_id(),
    Column("public_id", String(255), nullable=False),
    Column("dialect", String(16), nullable=False, server_default="native"),
    Column("stream_key", String(255)),
    Column("attributes_type", String(128), nullable=False),
    Column("attributes", Text, nullable=False),
    Column("content_state", Text, nullable=False),
    Column("version", BigInteger, nullable=False, server_default="1"),  # of the desired state
    Column("revision", BigInteger),  # the caller's newest revision
    Column("status", String(16), nullable=False),  # scheduled, active, ended
    # Alert, dates, relevance, urgency.
    Column("message", Text, nullable=False, server_default="{}"),
    Column("start_alert", Text, nullable=False, server_default="null"),
    Column("audience", Text, nullable=False, server_default="{}"),
    Column("channel_id", String(255)),  # followed by devices that can, instead of tokens
    # When the service requested its own channel from Apple. Without ``channel_id`` no answer
    # arrived.
    Column("channel_asked_at", BigInteger),
    Column("environment", String(16), nullable=False),
    Column("tags", Text, nullable=False, server_default="[]"),
    Column("metadata", Text, nullable=False, server_default="{}"),
    Column("start_at", BigInteger),
    Column("started_at", BigInteger),
    Column("end_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("end_reason", String(64)),
    Column("end_message", Text, nullable=False, server_default="{}"),  # sent with a scheduled end
    # When the system ends the last card (8 hours after its start); 0: not computed yet.
    Column("expires_at", BigInteger, nullable=False, server_default="0"),
    Column("retired_at", BigInteger),  # ended, no card is left, and its tokens are retired
    Column("hand_over_after", BigInteger),  # milliseconds of a card's life; NULL: never
    Column("hand_over_at", BigInteger),  # when to look for due cards
    Column("update_count", Integer, nullable=False, server_default="0"),
    Column("last_timestamp", BigInteger),  # the newest aps timestamp used, seconds
    # Used pushes of priority 10, as JSON by environment and language; see delivery/budget.
    Column("budgets", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    partition(),
    UniqueConstraint("app_id", "public_id"),
    Index(None, "app_id", "status", "id"),
    Index(None, "app_id", "stream_key", "id"),
    Index(None, "status", "start_at"),  # starts that the scheduler must send
    Index(None, "status", "end_at"),  # ends that the scheduler must send
    Index(None, "status", "retired_at", "expires_at"),  # activities that the system ended; pruning
    Index(None, "status", "hand_over_at"),  # activities whose cards get a second card
    Index(None, "app_id", "id"),
    few("ix_activities_channel", "app_id", "channel_id", where="channel_id IS NOT NULL"),
    few(  # activities whose channel Apple may have created without our knowledge
        "ix_activities_channel_asked",
        "channel_asked_at",
        where="channel_asked_at IS NOT NULL AND channel_id IS NULL",
    ),
    sqlite_autoincrement=True,  # ids of deleted rows are never reused
)

activity_devices = table(  # devices that an activity was started on, or that joined it
    "activity_devices",
    app_id_of_parent(),
    # No foreign key: it would be half the cost of storing a start on PostgreSQL. A writer that adds
    # a row holds the activity's row, and pruning deletes these rows first.
    Column("activity_id", RowId, nullable=False),
    device_id(),
    Column("started_at", BigInteger),  # when APNs accepted the start; NULL for a late joiner
    Column("token", String(512)),  # the activity token; NULL until it arrives
    Column("environment", String(16), nullable=False),
    Column("registered_at", BigInteger),
    Column("retired_at", BigInteger),
    Column("retired_reason", String(64)),
    Column("sent_version", BigInteger, nullable=False, server_default="0"),
    Column("acknowledged_version", BigInteger, nullable=False, server_default="0"),
    Column("joined_at", BigInteger),  # when a device reported a card that the app started itself
    Column("missing_reported_at", BigInteger),  # "started, but no token came" was reported
    Column("ending_at", BigInteger),  # an end on this device alone is pending since then
    Column("start_settled_at", BigInteger),  # when its start counted as unanswered, or was excluded
    # Whether its card follows the activity's channel; the others have tokens.
    Column("by_channel", Boolean, nullable=False, server_default="0"),
    # When the start of a second card was sent, until its token arrives; ``token`` is the first
    # card's.
    Column("handed_over_at", BigInteger),
    Column("handed_over_version", BigInteger),  # the second card's content
    Column("card", String(64)),  # ActivityKit's id of the card with ``token``, if reported
    Column("replaced_token", String(512)),  # the previous card
    Column("replaced_card", String(64)),
    Column("replaced_at", BigInteger),
    Column("replaced_ending_at", BigInteger),  # an end of the previous card is pending since then
    UniqueConstraint("activity_id", "device_id"),
    Index(None, "activity_id", "retired_at", "acknowledged_version", "id"),  # who is behind
    Index(None, "device_id", "retired_at"),  # the number of cards on this device
    few(  # a 410 has only the token; most started devices have none yet
        "ix_activity_devices_app_id_token", "app_id", "token", where="token IS NOT NULL"
    ),
    few(  # "started, but no token came"
        "ix_activity_devices_missing",
        "started_at",
        where="token IS NULL AND missing_reported_at IS NULL AND retired_at IS NULL",
    ),
    few(  # started, reported as missing, and still no answer
        "ix_activity_devices_still_missing",
        "started_at",
        where="missing_reported_at IS NOT NULL AND start_settled_at IS NULL "
        "AND token IS NULL AND retired_at IS NULL",
    ),
    few(
        "ix_activity_devices_ending",
        "ending_at",
        where="ending_at IS NOT NULL AND token IS NOT NULL",
    ),
    few(
        "ix_activity_devices_replaced", "replaced_ending_at", where="replaced_ending_at IS NOT NULL"
    ),
)

streams = table(
    "streams",
    app_id(),
    Column("key", String(255), nullable=False),
    Column("activity_id", RowId, ForeignKey("activities.id", ondelete="SET NULL")),
    Column("paused_at", BigInteger),
    Column("tags", Text, nullable=False, server_default="[]"),
    Column("metadata", Text, nullable=False, server_default="{}"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "key"),
    Index(None, "activity_id"),
)

channels = table(  # Apple's broadcast channels, as known here
    "channels",
    app_id(),
    Column("channel_id", String(255), nullable=False),
    Column("environment", String(16), nullable=False),
    Column("storage_policy", Integer, nullable=False),
    Column("name", String(200)),
    # The activity that the service created it for, and when its deletion began; NULL: a caller
    # created it. 0: unknown.
    Column("activity_id", RowId),
    Column("deleting_at", BigInteger),
    Column("deleted_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "environment", "channel_id"),
    few("ix_channels_own", "id", where="activity_id IS NOT NULL AND deleted_at IS NULL"),
    few("ix_channels_deleted", "deleted_at", where="deleted_at IS NOT NULL"),  # pruning
)

operations = table(  # accepted requests, in order
    "operations",
    app_id(),
    Column("public_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),  # start, update, end, notification, ...
    Column("activity_id", RowId, ForeignKey("activities.id", ondelete="CASCADE")),
    Column("version", BigInteger),
    Column("caller", String(64), nullable=False, server_default=""),
    Column("dialect", String(16), nullable=False, server_default="native"),
    Column(
        "status", String(16), nullable=False
    ),  # accepted, running, sharded, done, superseded, failed
    Column("request", Text, nullable=False, server_default="{}"),
    Column("cursor", BigInteger, nullable=False, server_default="0"),  # the last row id fanned out
    Column("targeted", Integer, nullable=False, server_default="0"),
    Column("accepted", Integer, nullable=False, server_default="0"),
    Column("queued", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("missing", Integer, nullable=False, server_default="0"),  # started, no token came
    Column("users", Integer, nullable=False, server_default="0"),
    Column("reason", String(255)),  # why it failed; with finished_at NULL it is tried again
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    partition(),
    UniqueConstraint("app_id", "public_id"),
    Index(None, "app_id", "id"),
    Index(None, "activity_id", "id"),
    few(  # open operations of an activity, independent of the number of finished ones
        "ix_operations_open",
        "activity_id",
        "version",
        where="finished_at IS NULL AND activity_id IS NOT NULL",
    ),
    Index(None, "status", "id"),  # operations that a restart must resume
    Index(None, "created_at"),  # pruning
    sqlite_autoincrement=True,  # ids of deleted rows are never reused
)

outcomes = table(
    "outcomes",
    app_id_of_parent(),
    Column("operation_id", RowId, nullable=False),  # no foreign key, for the same reasons
    Column("device_id", RowId, nullable=False),  # no foreign key: it outlives the device
    Column("verdict", String(24), nullable=False),
    Column("status", Integer, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("apns_id", String(36), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Where several devices share the row, and ``device_id`` is -1; see store/reached.
    Column("devices", LargeBinary),
    Column("first_device", RowId),
    Column("last_device", RowId),
    Index(None, "operation_id", "id"),
    Index(None, "device_id", "id"),  # why a device shows nothing
    few(  # the same
        "ix_outcomes_reached",
        "app_id",
        "id",
        "first_device",
        "last_device",
        where="devices IS NOT NULL",
    ),
    Index(None, "created_at"),  # pruning
)

shards = table(  # unfinished parts of a start or notification; see store/shards
    "shards",
    Column("operation_id", RowId, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False),
    # It is for the tokens with rows after ``after``, up to and including ``until``.
    Column("after", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("devices", LargeBinary),  # devices that may have got a push; NULL: none yet
    Column("owner", String(64), nullable=False, server_default=""),
    Column("epoch", BigInteger, nullable=False, server_default="0"),  # grows with each claim
    Column("expires_at", BigInteger, nullable=False, server_default="0"),  # as in leases
    Index(None, "operation_id", "id"),
    Index(None, "expires_at"),  # claimable shards
)

intended_pages = table(  # notes of earlier releases about a notification; no longer written
    "intended_pages",
    Column("operation_id", RowId, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False),
    Column("devices", Text, nullable=False),  # their row ids, as a JSON list
    Index(None, "operation_id", "id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("app_id", RowId, ForeignKey("apps.id", ondelete="CASCADE"), primary_key=True),
    Column("caller", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),  # SHA-256 of the canonical request
    Column("operation_id", RowId),
    Column("response", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "created_at"),  # pruning after 30 days
)

receipts = table(  # the app's own reports
    "receipts",
    app_id(),
    device_id(),
    # What it is about; 0 for none, so that rows about one thing can be unique. No foreign keys:
    # receipts are deleted with what they are about.
    Column("activity_id", RowId, nullable=False, server_default="0"),
    Column("operation_id", RowId, nullable=False, server_default="0"),
    Column("event", String(32), nullable=False),  # received, clicked, dismissed, ended, confirmed
    Column("happened_at", BigInteger, nullable=False),  # by the phone's clock
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("device_id", "activity_id", "operation_id", "event"),
    Index(None, "app_id", "id"),
    Index(None, "activity_id", "id"),
    Index(None, "operation_id", "id"),
    Index(None, "created_at"),
)

webhook_calls = table(  # the log of relayed button taps
    "webhook_calls",
    app_id(),
    Column("activity_id", RowId, ForeignKey("activities.id", ondelete="CASCADE")),
    Column("url_host", String(255), nullable=False),
    Column("method", String(8), nullable=False),
    Column("status", Integer),
    Column("error", String(255)),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "app_id", "id"),
    Index(None, "activity_id"),
    Index(None, "created_at"),
)

api_keys = table(  # callers of an app's HTTP API
    "api_keys",
    app_id(),
    Column("public_id", String(64), nullable=False, unique=True),
    # The first key's id: the same caller after rotation.
    Column("family", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("dialect", String(16), nullable=False),
    Column("lookup", String(32), nullable=False, unique=True),  # the part that identifies the row
    Column("secret_hash", LargeBinary, nullable=False),  # SHA-256 of the whole secret
    Column("scopes", Text, nullable=False),
    Column("groups", Text),  # NULL: every group
    Column("per_minute", Integer),  # NULL: as the settings say for the dialect
    Column("concurrent", Integer),
    Column("expires_at", BigInteger),  # set by a rotation: when the old secret expires
    Column("revoked_at", BigInteger),
    Column("replaced_by", String(64)),
    Column("last_used_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "app_id", "id"),
)

audit_log = table(  # changes of permissions, and their authors
    "audit_log",
    app_id(),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("detail", Text, nullable=False, server_default="{}"),
    Column("address", String(64), nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "app_id", "id"),
    Index(None, "created_at"),  # pruning
)

buttons = table(  # the webhook of a button; the phone has only a URL that identifies the row
    "buttons",
    app_id(),
    Column("digest", String(43), nullable=False),  # of all columns below: equal buttons share a row
    Column("title", String(200), nullable=False),
    Column("url", Text, nullable=False),
    Column("method", String(8), nullable=False),
    Column("body", Text, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),  # when it was last shown on a card
    UniqueConstraint("app_id", "digest"),
    Index(None, "created_at"),  # pruning
)

metric_values = table(  # the newest value of what a widget shows
    "metric_values",
    app_id(),
    Column("key", String(64), nullable=False),
    Column("value", Text),  # JSON, a number or a text; NULL before the first value
    Column("measured_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("app_id", "key"),
)

leases = Table(  # the worker that sends for a partition; see store/ownership
    "leases",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),  # grows with each new owner
    Column("expires_at", BigInteger, nullable=False),  # by the database's clock
)

workers = Table(  # the workers that share the partitions
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
)

token_changes = table(  # tokens that joined or left, to notify the owners of their activities
    "token_changes",
    Column("origin", String(64), nullable=False),  # the process that wrote it already knows
    Column("activity_id", RowId, nullable=False),
    Column("token", String(512)),  # a token that left; NULL: tokens joined
    Column("behind", Boolean, nullable=False),  # one that joined lacks the newest state
    Column("created_at", BigInteger, nullable=False),
    Index(None, "created_at"),  # pruning
)
