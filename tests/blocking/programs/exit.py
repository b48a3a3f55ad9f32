"""Ends while another thread's push waits for its answer: the exit handler waits for it."""

import sys
import threading

from common import UPDATE, make_client, token

client = make_client()
assert client.send(UPDATE, token(1, 0)).accepted
threading.Thread(target=client.send, args=(UPDATE, token(0xDE1A, 1)), daemon=True).start()
print("sent", flush=True)
sys.stdin.readline()
