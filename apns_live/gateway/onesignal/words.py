"""The texts of OneSignal's errors; the official SDKs have them as constants."""

INVALID_KEY = (
    "Access denied.  Please include an 'Authorization: ...' header with a valid API key "
    "(https://documentation.onesignal.com/docs/en/keys-and-ids#api-keys)."
)
"""The text that the SDKs compare, to the letter; two spaces after the first sentence."""
NO_TARGET = (
    "You must include which players, segments, or tags you wish to send this notification to."
)
RATE_LIMITED = "API rate limit exceeded"
UNAVAILABLE = "Service temporarily unavailable"
UNKNOWN_ACTIVITY = "activity_id not found in this app"
ENDED_ACTIVITY = "activity_id not found in this app: the activity has ended, and cannot be changed"
UNKNOWN_TYPE = (
    "activity_type {name!r} not found in this app: no device has handed this gateway a push-to-start "
    "token for it. The app must register its tokens here; see docs/vendors/onesignal.md"
)
NOBODY = (
    "None of the recipients has handed this gateway a push-to-start token for {name!r}: nobody is "
    "reached; see docs/vendors/onesignal.md"
)
NO_DEVICES = (
    "No device has handed this gateway an activity token for this activity_id yet: each gets the "
    "newest state when it does"
)
ALL_SENT = "Notification has already been sent to all recipients"
NO_MESSAGE = "Notification not found"
WRONG_APP = "The API key is not one of this app_id"
CALLS_OFF = (
    "Device calls are off for this app. Set onesignal_device_calls to signed or open, or let the "
    "app register its tokens with the native API; see docs/vendors/onesignal.md"
)
CALLS_SIGNED = (
    "Device calls of this app need a device credential for this subscription as Authorization: "
    "Bearer CREDENTIAL; your server mints one at POST /v1/devices/{device}/credentials"
)
OWNED = (
    "This subscription, or this token, belongs to a device with a credential of its own: the call "
    "needs that credential"
)
