"""A recorded sequence replayed gives the same log, byte for byte."""

import random

from apns_live.testing.log import DeliveryLog
from apns_live.testing.phones import BudgetLaw

from .conftest import GAME, Sender, log_lines


def sequence(seed, length=1500):
    """Return a recording: what is done and when, with tokens named by their place."""
    source = random.Random(seed)
    kinds = ["start", "update", "update", "update", "end", "wait", "auto"]
    return [
        (
            source.choice(kinds),
            source.randrange(30),
            source.choice([5, 10]),
            source.randrange(-5, 20),
            source.random() * 400,
        )
        for _ in range(length)
    ]


def play(steps, **settings):
    sender = Sender(
        budget=BudgetLaw(frequent_capacity=(0, 2)),
        silent_stream=0.5,
        consent="allow",
        token_never=0.2,
        rotate_start_token=0.1,
        rotate_activity_token=5000,
        priority_5="awake",
        asleep=0.5,
        offline=0.3,
        **settings,
    )
    tokens = []
    sender.phones.on_token.append(lambda _device, _activity, token: tokens.append(token))
    phones = [sender.phones.add_device(attributes_types=[GAME]) for _ in range(10)]
    for what, who, priority, offset, seconds in steps:
        timestamp = int(sender.now) + offset
        push = {"priority": priority, "expiration": int(sender.now) + 1000}
        if what == "start":
            token = phones[who % 10].token_of("start").text
            sender.start(token, {"n": who}, timestamp=timestamp, push=push)
        elif what == "auto":
            sender.update(f"{who:064x}", {"n": who}, timestamp=timestamp, push=push)
        elif what == "wait":
            sender.clock.advance_sync(seconds)
        elif tokens:
            send = sender.update if what == "update" else sender.end
            send(tokens[who % len(tokens)], {"n": who}, timestamp=timestamp, push=push)
    return log_lines(sender.log), tokens


def test_replays_are_equal_to_the_byte():
    steps = sequence(1)
    first, second = play(steps, seed=7), play(steps, seed=7)
    assert first == second
    assert first[0].count(b"\n") > 1000
    for word in (b"budget", b"delivered from storage", b"older timestamp", b"silent token"):
        assert word in first[0]


def test_another_seed_is_another_day():
    steps = sequence(1)
    assert play(steps, seed=7)[0] != play(steps, seed=8)[0]


def test_draws_do_not_depend_on_the_order_of_other_phones():
    def shown(order):
        sender = Sender(seed=3, token_never=0.5, offline=0.5)
        for number in order:
            sender.start(f"{number:064x}", {"n": number})
        sender.clock.advance_sync(100)
        return {
            record.push.token: (record.state, record.why, record.activity)
            for record in sender.log.pushes
        }

    numbers = list(range(40))
    assert shown(numbers) == shown(reversed(numbers))


def test_the_log_keeps_the_newest():
    sender = Sender()
    sender.phones.log = log = DeliveryLog(pushes=5, entries=5)
    for number in range(50):
        sender.update(f"{number:064x}")
    assert len(log.pushes) == len(log.entries) == 5
    assert [record.number for record in log.pushes] == [46, 47, 48, 49, 50]
    assert log.pushes.get(45) is None
    assert log_lines(log).count(b"\n") == 5
