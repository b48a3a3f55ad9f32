"""Sends, forks, sends in the child, ends the child, and sends again."""

import os
import sys

from common import UPDATE, make_client, token

from apns_live.errors import ClientClosed

client = make_client()
assert client.send(UPDATE, token(0, 1)).accepted
run = client.fan_out(UPDATE, (token(0, 100 + n) for n in range(10_000)))
first = next(run)
child = os.fork()
if child == 0:
    # The parent's fan-out cannot be gone on with here, and says so.
    try:
        while True:
            next(run)
    except ClientClosed:
        pass
    assert all(client.send(UPDATE, token(1, n)).accepted for n in range(20))
    with client.fan_out(UPDATE, [token(2, n) for n in range(500)]) as mine:
        assert sum(outcome.accepted for outcome in mine) == 500
    assert len(client.statistics().connections) == 1
    client.close()
    # An ordinary exit, so that finalisers and exit handlers run in the child too.
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert sum(outcome.accepted for outcome in run) == 9_999
run.close()
assert client.send(UPDATE, token(0, 2)).accepted
statistics = client.statistics()
assert statistics.connections_opened == 1, statistics
client.close()
