CREATE TABLE apps (
    id BIGSERIAL NOT NULL,
    public_id VARCHAR(64) NOT NULL,
    name VARCHAR(200) NOT NULL,
    bundle_id VARCHAR(255) NOT NULL,
    environment VARCHAR(16) NOT NULL,
    settings TEXT DEFAULT '{}' NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_apps PRIMARY KEY (id),
    CONSTRAINT uq_apps_public_id UNIQUE (public_id)
);

CREATE TABLE activities (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    public_id VARCHAR(255) NOT NULL,
    dialect VARCHAR(16) DEFAULT 'native' NOT NULL,
    stream_key VARCHAR(255),
    attributes_type VARCHAR(128) NOT NULL,
    attributes TEXT NOT NULL,
    content_state TEXT NOT NULL,
    version BIGINT DEFAULT '1' NOT NULL,
    revision BIGINT,
    status VARCHAR(16) NOT NULL,
    message TEXT DEFAULT '{}' NOT NULL,
    start_alert TEXT DEFAULT 'null' NOT NULL,
    audience TEXT DEFAULT '{}' NOT NULL,
    channel_id VARCHAR(255),
    environment VARCHAR(16) NOT NULL,
    tags TEXT DEFAULT '[]' NOT NULL,
    metadata TEXT DEFAULT '{}' NOT NULL,
    start_at BIGINT,
    started_at BIGINT,
    end_at BIGINT,
    ended_at BIGINT,
    end_reason VARCHAR(64),
    end_message TEXT DEFAULT '{}' NOT NULL,
    expires_at BIGINT DEFAULT '0' NOT NULL,
    retired_at BIGINT,
    update_count INTEGER DEFAULT '0' NOT NULL,
    last_timestamp BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_activities PRIMARY KEY (id),
    CONSTRAINT fk_activities_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_activities_app_id_public_id UNIQUE (app_id, public_id)
);

CREATE INDEX ix_activities_app_id_id ON activities (app_id, id);

CREATE INDEX ix_activities_app_id_status_id ON activities (app_id, status, id);

CREATE INDEX ix_activities_app_id_stream_key_id ON activities (app_id, stream_key, id);

CREATE INDEX ix_activities_status_end_at ON activities (status, end_at);

CREATE INDEX ix_activities_status_retired_at_expires_at ON activities (status, retired_at, expires_at);

CREATE INDEX ix_activities_status_start_at ON activities (status, start_at);

CREATE TABLE api_keys (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    public_id VARCHAR(64) NOT NULL,
    family VARCHAR(64) NOT NULL,
    name VARCHAR(200) NOT NULL,
    dialect VARCHAR(16) NOT NULL,
    lookup VARCHAR(32) NOT NULL,
    secret_hash BYTEA NOT NULL,
    scopes TEXT NOT NULL,
    groups TEXT,
    per_minute INTEGER,
    concurrent INTEGER,
    expires_at BIGINT,
    revoked_at BIGINT,
    replaced_by VARCHAR(64),
    last_used_at BIGINT,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT fk_api_keys_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_api_keys_lookup UNIQUE (lookup),
    CONSTRAINT uq_api_keys_public_id UNIQUE (public_id)
);

CREATE INDEX ix_api_keys_app_id_id ON api_keys (app_id, id);

CREATE TABLE audit_log (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    actor VARCHAR(128) NOT NULL,
    action VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    detail TEXT DEFAULT '{}' NOT NULL,
    address VARCHAR(64) DEFAULT '' NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_audit_log PRIMARY KEY (id),
    CONSTRAINT fk_audit_log_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE
);

CREATE INDEX ix_audit_log_app_id_id ON audit_log (app_id, id);

CREATE INDEX ix_audit_log_created_at ON audit_log (created_at);

CREATE TABLE buttons (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    digest VARCHAR(43) NOT NULL,
    title VARCHAR(200) NOT NULL,
    url TEXT NOT NULL,
    method VARCHAR(8) NOT NULL,
    body TEXT DEFAULT '' NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_buttons PRIMARY KEY (id),
    CONSTRAINT fk_buttons_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_buttons_app_id_digest UNIQUE (app_id, digest)
);

CREATE INDEX ix_buttons_created_at ON buttons (created_at);

CREATE TABLE channels (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    channel_id VARCHAR(255) NOT NULL,
    environment VARCHAR(16) NOT NULL,
    storage_policy INTEGER NOT NULL,
    name VARCHAR(200),
    deleted_at BIGINT,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_channels PRIMARY KEY (id),
    CONSTRAINT fk_channels_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_channels_app_id_environment_channel_id UNIQUE (app_id, environment, channel_id)
);

CREATE INDEX ix_channels_deleted ON channels (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE credentials (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    environment VARCHAR(16) NOT NULL,
    team_id VARCHAR(10) NOT NULL,
    key_id VARCHAR(10) NOT NULL,
    sealed_key BYTEA NOT NULL,
    active BOOLEAN DEFAULT '1' NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_credentials PRIMARY KEY (id),
    CONSTRAINT fk_credentials_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_credentials_app_id_environment_key_id UNIQUE (app_id, environment, key_id)
);

CREATE TABLE groups (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    slug VARCHAR(128) NOT NULL,
    name VARCHAR(200) NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_groups PRIMARY KEY (id),
    CONSTRAINT fk_groups_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_groups_app_id_slug UNIQUE (app_id, slug)
);

CREATE TABLE idempotency (
    app_id BIGINT NOT NULL,
    caller VARCHAR(64) NOT NULL,
    key VARCHAR(255) NOT NULL,
    body_hash BYTEA NOT NULL,
    operation_id BIGINT,
    response TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_idempotency PRIMARY KEY (app_id, caller, key),
    CONSTRAINT fk_idempotency_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE
);

CREATE INDEX ix_idempotency_created_at ON idempotency (created_at);

CREATE TABLE metric_values (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    key VARCHAR(64) NOT NULL,
    value TEXT,
    measured_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_metric_values PRIMARY KEY (id),
    CONSTRAINT fk_metric_values_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_metric_values_app_id_key UNIQUE (app_id, key)
);

CREATE TABLE segments (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    public_id VARCHAR(64) NOT NULL,
    name VARCHAR(200) NOT NULL,
    filter TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_segments PRIMARY KEY (id),
    CONSTRAINT fk_segments_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_segments_app_id_name UNIQUE (app_id, name),
    CONSTRAINT uq_segments_app_id_public_id UNIQUE (app_id, public_id)
);

CREATE TABLE users (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    public_id VARCHAR(64) NOT NULL,
    external_id VARCHAR(255),
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_users PRIMARY KEY (id),
    CONSTRAINT fk_users_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_users_app_id_external_id UNIQUE (app_id, external_id),
    CONSTRAINT uq_users_app_id_public_id UNIQUE (app_id, public_id)
);

CREATE TABLE devices (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    public_id VARCHAR(64) NOT NULL,
    user_id BIGINT,
    language VARCHAR(16),
    country VARCHAR(2),
    latitude FLOAT,
    longitude FLOAT,
    app_version VARCHAR(64),
    app_version_order VARCHAR(128),
    os_version VARCHAR(32),
    first_session BIGINT,
    last_session BIGINT,
    session_count INTEGER DEFAULT '0' NOT NULL,
    session_time BIGINT DEFAULT '0' NOT NULL,
    amount_spent FLOAT DEFAULT '0' NOT NULL,
    push_enabled BOOLEAN DEFAULT '1' NOT NULL,
    frequent_updates BOOLEAN,
    secret_hash BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_devices PRIMARY KEY (id),
    CONSTRAINT fk_devices_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT fk_devices_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT uq_devices_app_id_public_id UNIQUE (app_id, public_id)
);

CREATE INDEX ix_devices_app_id_app_version_order_id ON devices (app_id, app_version_order, id);

CREATE INDEX ix_devices_app_id_country_id ON devices (app_id, country, id);

CREATE INDEX ix_devices_app_id_first_session_id ON devices (app_id, first_session, id);

CREATE INDEX ix_devices_app_id_language_id ON devices (app_id, language, id);

CREATE INDEX ix_devices_app_id_last_session_id ON devices (app_id, last_session, id);

CREATE INDEX ix_devices_user_id ON devices (user_id);

CREATE TABLE operations (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    public_id VARCHAR(64) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    activity_id BIGINT,
    version BIGINT,
    caller VARCHAR(64) DEFAULT '' NOT NULL,
    dialect VARCHAR(16) DEFAULT 'native' NOT NULL,
    status VARCHAR(16) NOT NULL,
    request TEXT DEFAULT '{}' NOT NULL,
    cursor BIGINT DEFAULT '0' NOT NULL,
    targeted INTEGER DEFAULT '0' NOT NULL,
    accepted INTEGER DEFAULT '0' NOT NULL,
    queued INTEGER DEFAULT '0' NOT NULL,
    failed INTEGER DEFAULT '0' NOT NULL,
    missing INTEGER DEFAULT '0' NOT NULL,
    users INTEGER DEFAULT '0' NOT NULL,
    reason VARCHAR(255),
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    CONSTRAINT pk_operations PRIMARY KEY (id),
    CONSTRAINT fk_operations_activity_id FOREIGN KEY(activity_id) REFERENCES activities (id) ON DELETE CASCADE,
    CONSTRAINT fk_operations_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_operations_app_id_public_id UNIQUE (app_id, public_id)
);

CREATE INDEX ix_operations_activity_id_id ON operations (activity_id, id);

CREATE INDEX ix_operations_app_id_id ON operations (app_id, id);

CREATE INDEX ix_operations_created_at ON operations (created_at);

CREATE INDEX ix_operations_open ON operations (activity_id, version) WHERE finished_at IS NULL AND activity_id IS NOT NULL;

CREATE INDEX ix_operations_status_id ON operations (status, id);

CREATE TABLE streams (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    key VARCHAR(255) NOT NULL,
    activity_id BIGINT,
    paused_at BIGINT,
    tags TEXT DEFAULT '[]' NOT NULL,
    metadata TEXT DEFAULT '{}' NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_streams PRIMARY KEY (id),
    CONSTRAINT fk_streams_activity_id FOREIGN KEY(activity_id) REFERENCES activities (id) ON DELETE SET NULL,
    CONSTRAINT fk_streams_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_streams_app_id_key UNIQUE (app_id, key)
);

CREATE INDEX ix_streams_activity_id ON streams (activity_id);

CREATE TABLE user_aliases (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    user_id BIGINT NOT NULL,
    label VARCHAR(128) NOT NULL,
    value VARCHAR(255) NOT NULL,
    CONSTRAINT pk_user_aliases PRIMARY KEY (id),
    CONSTRAINT fk_user_aliases_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT fk_user_aliases_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT uq_user_aliases_app_id_label_value UNIQUE (app_id, label, value)
);

CREATE INDEX ix_user_aliases_user_id ON user_aliases (user_id);

CREATE TABLE webhook_calls (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    activity_id BIGINT,
    url_host VARCHAR(255) NOT NULL,
    method VARCHAR(8) NOT NULL,
    status INTEGER,
    error VARCHAR(255),
    attempts INTEGER DEFAULT '0' NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_webhook_calls PRIMARY KEY (id),
    CONSTRAINT fk_webhook_calls_activity_id FOREIGN KEY(activity_id) REFERENCES activities (id) ON DELETE CASCADE,
    CONSTRAINT fk_webhook_calls_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE
);

CREATE INDEX ix_webhook_calls_activity_id ON webhook_calls (activity_id);

CREATE INDEX ix_webhook_calls_app_id_id ON webhook_calls (app_id, id);

CREATE INDEX ix_webhook_calls_created_at ON webhook_calls (created_at);

CREATE TABLE activity_devices (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    activity_id BIGINT NOT NULL,
    device_id BIGINT NOT NULL,
    started_at BIGINT,
    token VARCHAR(512),
    environment VARCHAR(16) NOT NULL,
    registered_at BIGINT,
    retired_at BIGINT,
    retired_reason VARCHAR(64),
    sent_version BIGINT DEFAULT '0' NOT NULL,
    acknowledged_version BIGINT DEFAULT '0' NOT NULL,
    joined_at BIGINT,
    missing_reported_at BIGINT,
    ending_at BIGINT,
    CONSTRAINT pk_activity_devices PRIMARY KEY (id),
    CONSTRAINT fk_activity_devices_device_id FOREIGN KEY(device_id) REFERENCES devices (id) ON DELETE CASCADE,
    CONSTRAINT uq_activity_devices_activity_id_device_id UNIQUE (activity_id, device_id)
);

CREATE INDEX ix_activity_devices_activity_id_retired_at_acknowledged_ebcd ON activity_devices (activity_id, retired_at, acknowledged_version, id);

CREATE INDEX ix_activity_devices_app_id_token ON activity_devices (app_id, token) WHERE token IS NOT NULL;

CREATE INDEX ix_activity_devices_device_id_retired_at ON activity_devices (device_id, retired_at);

CREATE INDEX ix_activity_devices_ending ON activity_devices (ending_at) WHERE ending_at IS NOT NULL AND token IS NOT NULL;

CREATE INDEX ix_activity_devices_missing ON activity_devices (started_at) WHERE token IS NULL AND missing_reported_at IS NULL AND retired_at IS NULL;

CREATE TABLE attributes (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    device_id BIGINT,
    user_id BIGINT,
    namespace VARCHAR(8) NOT NULL,
    name VARCHAR(128) NOT NULL,
    kind VARCHAR(8) NOT NULL,
    position INTEGER DEFAULT '0' NOT NULL,
    text VARCHAR(1024),
    number FLOAT,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_attributes PRIMARY KEY (id),
    CONSTRAINT ck_attributes_one_subject CHECK ((device_id IS NULL) <> (user_id IS NULL)),
    CONSTRAINT fk_attributes_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT fk_attributes_device_id FOREIGN KEY(device_id) REFERENCES devices (id) ON DELETE CASCADE,
    CONSTRAINT fk_attributes_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT uq_attributes_device_id_namespace_name_position UNIQUE (device_id, namespace, name, position),
    CONSTRAINT uq_attributes_user_id_namespace_name_position UNIQUE (user_id, namespace, name, position)
);

CREATE INDEX ix_attributes_app_id_namespace_name_number_device_id_user_id ON attributes (app_id, namespace, name, number, device_id, user_id);

CREATE INDEX ix_attributes_app_id_namespace_name_text_device_id_user_id ON attributes (app_id, namespace, name, text, device_id, user_id);

CREATE TABLE device_tokens (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    device_id BIGINT NOT NULL,
    environment VARCHAR(16) NOT NULL,
    token VARCHAR(512) NOT NULL,
    registered_at BIGINT NOT NULL,
    retired_at BIGINT,
    retired_reason VARCHAR(64),
    CONSTRAINT pk_device_tokens PRIMARY KEY (id),
    CONSTRAINT fk_device_tokens_device_id FOREIGN KEY(device_id) REFERENCES devices (id) ON DELETE CASCADE,
    CONSTRAINT uq_device_tokens_device_id_environment UNIQUE (device_id, environment)
);

CREATE INDEX ix_device_tokens_app_id_environment_retired_at_id ON device_tokens (app_id, environment, retired_at, id);

CREATE INDEX ix_device_tokens_app_id_token ON device_tokens (app_id, token);

CREATE INDEX ix_device_tokens_retired ON device_tokens (retired_at) WHERE retired_at IS NOT NULL;

CREATE TABLE group_members (
    id BIGSERIAL NOT NULL,
    group_id BIGINT NOT NULL,
    device_id BIGINT,
    user_id BIGINT,
    CONSTRAINT pk_group_members PRIMARY KEY (id),
    CONSTRAINT ck_group_members_one_subject CHECK ((device_id IS NULL) <> (user_id IS NULL)),
    CONSTRAINT fk_group_members_device_id FOREIGN KEY(device_id) REFERENCES devices (id) ON DELETE CASCADE,
    CONSTRAINT fk_group_members_group_id FOREIGN KEY(group_id) REFERENCES groups (id) ON DELETE CASCADE,
    CONSTRAINT fk_group_members_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT uq_group_members_group_id_device_id UNIQUE (group_id, device_id),
    CONSTRAINT uq_group_members_group_id_user_id UNIQUE (group_id, user_id)
);

CREATE INDEX ix_group_members_device_id ON group_members (device_id);

CREATE INDEX ix_group_members_user_id ON group_members (user_id);

CREATE TABLE intended_pages (
    id BIGSERIAL NOT NULL,
    operation_id BIGINT NOT NULL,
    devices TEXT NOT NULL,
    unsent BOOLEAN DEFAULT '0' NOT NULL,
    CONSTRAINT pk_intended_pages PRIMARY KEY (id),
    CONSTRAINT fk_intended_pages_operation_id FOREIGN KEY(operation_id) REFERENCES operations (id) ON DELETE CASCADE
);

CREATE INDEX ix_intended_pages_operation_id_id ON intended_pages (operation_id, id);

CREATE TABLE outcomes (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    operation_id BIGINT NOT NULL,
    device_id BIGINT NOT NULL,
    verdict VARCHAR(24) NOT NULL,
    status INTEGER NOT NULL,
    reason VARCHAR(64) NOT NULL,
    apns_id VARCHAR(36) NOT NULL,
    priority INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_outcomes PRIMARY KEY (id)
);

CREATE INDEX ix_outcomes_created_at ON outcomes (created_at);

CREATE INDEX ix_outcomes_operation_id_id ON outcomes (operation_id, id);

CREATE TABLE receipts (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    device_id BIGINT NOT NULL,
    activity_id BIGINT DEFAULT '0' NOT NULL,
    operation_id BIGINT DEFAULT '0' NOT NULL,
    event VARCHAR(32) NOT NULL,
    happened_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_receipts PRIMARY KEY (id),
    CONSTRAINT fk_receipts_app_id FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT fk_receipts_device_id FOREIGN KEY(device_id) REFERENCES devices (id) ON DELETE CASCADE,
    CONSTRAINT uq_receipts_device_id_activity_id_operation_id_event UNIQUE (device_id, activity_id, operation_id, event)
);

CREATE INDEX ix_receipts_activity_id_id ON receipts (activity_id, id);

CREATE INDEX ix_receipts_app_id_id ON receipts (app_id, id);

CREATE INDEX ix_receipts_created_at ON receipts (created_at);

CREATE INDEX ix_receipts_operation_id_id ON receipts (operation_id, id);

CREATE TABLE start_tokens (
    id BIGSERIAL NOT NULL,
    app_id BIGINT NOT NULL,
    device_id BIGINT NOT NULL,
    attributes_type VARCHAR(128) NOT NULL,
    environment VARCHAR(16) NOT NULL,
    token VARCHAR(512) NOT NULL,
    registered_at BIGINT NOT NULL,
    retired_at BIGINT,
    retired_reason VARCHAR(64),
    CONSTRAINT pk_start_tokens PRIMARY KEY (id),
    CONSTRAINT fk_start_tokens_device_id FOREIGN KEY(device_id) REFERENCES devices (id) ON DELETE CASCADE,
    CONSTRAINT uq_start_tokens_device_id_attributes_type_environment UNIQUE (device_id, attributes_type, environment)
);

CREATE INDEX ix_start_tokens_app_id_attributes_type_retired_at_id ON start_tokens (app_id, attributes_type, retired_at, id);

CREATE INDEX ix_start_tokens_app_id_token ON start_tokens (app_id, token);

CREATE INDEX ix_start_tokens_retired ON start_tokens (retired_at) WHERE retired_at IS NOT NULL;
