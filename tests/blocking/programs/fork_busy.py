"""Forks again and again while other threads send; children end without a word to anybody."""

import os
import threading

from common import UPDATE, make_client, token

client = make_client()
lost = []
children = []


def work(who: int) -> None:
    for number in range(300):
        outcome = client.send(UPDATE, token(who, number))
        if not outcome.accepted:
            lost.append(outcome)


threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
for thread in threads:
    thread.start()
for number in range(8):
    child = os.fork()
    if child == 0:
        good = all(client.send(UPDATE, token(100 + number, n)).accepted for n in range(5))
        client.close()
        os._exit(0 if good else 1)
    children.append(child)
for thread in threads:
    thread.join()
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
assert not lost, lost[:3]
assert client.statistics().connections_opened == 1
client.close()
