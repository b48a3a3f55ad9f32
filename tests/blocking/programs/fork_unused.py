"""Builds the client, forks before it was used, and uses it on both sides."""

import os
import sys
import threading

from common import UPDATE, make_client, token

client = make_client()
assert "apns_live" not in [thread.name for thread in threading.enumerate()]
child = os.fork()
for number in range(10):
    assert client.send(UPDATE, token(child == 0, number)).accepted
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
