"""The texts of Braze's errors; some clients compare them.

Source: Braze, "API errors and responses".
"""

from __future__ import annotations

BAD_REQUEST = "Bad Request"
NO_RECIPIENTS = "No Recipients"
TOO_MANY_IDS = "The max number of ids per request was exceeded"
NO_MESSAGE = "No message to send"
INVALID_EXTRA = "Invalid Extra Push Payload"
TOO_LONG = "Apple Push Length Exceeded"
UNAUTHORIZED = "Unauthorized"
ACCESS_DENIED = "Access Denied"
NOT_FOUND = "Not Found"
NOT_ALLOWED = "Method Not Allowed"
TOO_LARGE = "Request Entity Too Large"
MEDIA_TYPE = "Unsupported Media Type"
RATE_LIMITED = "Rate Limited"
SERVER_ERROR = "Internal Server Error"
BAD_GATEWAY = "Bad Gateway"
UNAVAILABLE = "Service Unavailable"
SUCCESS = "success"

FATAL = frozenset({NO_RECIPIENTS, TOO_MANY_IDS, NO_MESSAGE, INVALID_EXTRA, TOO_LONG})
"""Problems that are Braze's own words: they stand in ``message``, and ours beside them."""

NOT_JSON = (
    "\nProblem:\n  message body does not match declared format\nResolution:\n  when specifying "
    "application/json as content-type, you must pass valid application/json in the request's 'body' "
)
"""The answer that both endpoints' pages show for a body that is not a JSON object, to the letter."""
UNKNOWN_ACTIVITY = (
    "No device has handed this gateway a token for the activity_id {activity!r}, so nothing was "
    "sent. The app must register its tokens here; see docs/vendors/braze.md"
)
NOBODY_LEFT = (
    "No device has the activity {activity!r} any more, so nothing was sent: everyone dismissed it"
)
ENDED_ACTIVITY = "The activity {activity!r} has ended, so nothing was sent. Start a new one"
UNKNOWN_TYPE = (
    "No device has handed this gateway a push-to-start token for {name!r}: nobody is reached until "
    "the app registers its tokens here; see docs/vendors/braze.md"
)
NOBODY = (
    "None of the recipients has handed this gateway a push-to-start token for {name!r}: nobody is "
    "reached; see docs/vendors/braze.md"
)
