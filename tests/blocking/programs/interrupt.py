"""Fans out to tokens whose answers never come, until a SIGINT ends it."""

import sys

from common import UPDATE, make_client, token

# Leaving a fan-out waits for the answers to what has left.
client = make_client(response_timeout=0.5)
assert client.send(UPDATE, token(1, 0)).accepted
print("ready", flush=True)
try:
    if sys.argv[2] == "send":
        client.send(UPDATE, token(0xDEAD, 0))
    else:
        with client.fan_out(UPDATE, (token(0xDEAD, n) for n in range(50))) as run:
            for _ in run:
                raise AssertionError("nothing answers")
except KeyboardInterrupt:
    print("interrupted", flush=True)
# The thread and the client survive it.
assert client.send(UPDATE, token(1, 1)).accepted
client.close(drain=0.1)
print("done", flush=True)
