"""What the programs share: a client from the first argument, and a message."""

import json
import sys

from apns_live import blocking
from apns_live.client import Endpoint
from apns_live.credentials import ProviderKey
from apns_live.payload import Update


def make_client(**options: float) -> blocking.Client:
    facts = json.loads(sys.argv[1])
    return blocking.Client(
        ProviderKey.from_file(facts["key_file"], team_id=facts["team_id"]),
        bundle_id=facts["bundle_id"],
        environment=Endpoint(**facts["endpoint"]),
        max_connections=1,
        **options,
    )


def token(who: int, number: int) -> str:
    return f"{who:08x}{number:056x}"


UPDATE = Update(content_state={"home": 71})
