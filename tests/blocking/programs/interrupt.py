"""Sends to tokens whose answers never come, until a SIGINT ends it."""

import itertools
import sys

from common import UPDATE, make_client, token

# Leaving a fan-out waits for the answers to what has left.
client = make_client(response_timeout=1.0)
assert client.send(UPDATE, token(1, 0)).accepted
print("ready", flush=True)
try:
    if sys.argv[2] == "send":
        # The interrupt may come late on a busy machine, so neither ever ends by itself.
        while True:
            assert not client.send(UPDATE, token(0xDEAD, 0)).accepted
    else:
        with client.fan_out(UPDATE, (token(0xDEAD, n) for n in itertools.count())) as run:
            assert not any(outcome.accepted for outcome in run)
except KeyboardInterrupt:
    print("interrupted", flush=True)
# The thread and the client survive it.
assert client.send(UPDATE, token(1, 1)).accepted
client.close(drain=0.1)
print("done", flush=True)
