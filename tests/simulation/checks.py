"""What must hold in every world, whatever happened in it."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from apns_live import Outcome, Verdict

if TYPE_CHECKING:
    from .callers import FanOut, Said
    from .world import World

_SETTLED_WITHOUT_SENDING = frozenset({Verdict.NOT_SENT, Verdict.SUPERSEDED, Verdict.EXPIRED})
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Seen:
    """One push that APNs processed."""

    at: float
    token: str
    event: str
    serial: int
    timestamp: int
    alert: str
    starts: bool


def check(world: World) -> None:
    """Add a complaint to the world for everything that does not hold."""
    seen = _seen(world)
    by_token: dict[str, list[Seen]] = defaultdict(list)
    by_message: dict[tuple[str, int], list[Seen]] = defaultdict(list)
    for push in seen:
        by_token[push.token].append(push)
        by_message[push.token, push.serial].append(push)
    for said in world.callers.said.values():
        _check_said(world, said, by_message)
    for fan_out in world.callers.fan_outs:
        _check_fan_out(world, fan_out, by_message)
    for wiretap in world.network.wiretaps:
        for problem in wiretap.problems:
            world.complain(problem)
    for token, pushes in by_token.items():
        _check_order(world, token, pushes)
    _check_newest(world, by_token)
    _check_given_up(world)
    _check_alerts(world, by_token)
    _check_left_over(world)


def _seen(world: World) -> list[Seen]:
    found = []
    for at, push in world.processed:
        aps = _decode(push.body)["aps"]
        alert = aps.get("alert")
        found.append(
            Seen(
                at,
                push.token,
                aps["event"],
                aps.get("content-state", {}).get("serial", 0),
                aps.get("timestamp", 0),
                alert["body"] if alert else "",
                aps["event"] == "start",
            )
        )
    return found


def _check_outcome(world: World, what: str, outcome: Outcome, times: int, *, starts: bool) -> None:
    """One push: what was told of it agrees with what APNs did."""
    if outcome.verdict is Verdict.ACCEPTED and not times:
        world.complain(f"{what} is ACCEPTED, but APNs never processed it")
    admits = outcome.accepted or outcome.may_have_been_sent or outcome.verdict is Verdict.UNKNOWN
    if times and not admits:
        world.complain(f"{what} was processed, yet its outcome is {outcome}")
    if starts and times > 1:
        world.complain(f"{what}, a start, was processed {times} times")
    if times > max(1, outcome.attempts) and not world.crashes:
        world.complain(f"{what} was processed {times} times in {outcome.attempts} attempts")
    arrived = world.bytes_were_lost or outcome.apns_id in world.requested
    if outcome.verdict is Verdict.UNKNOWN and not arrived:
        world.complain(f"{what} is UNKNOWN, but its request never left: {outcome}")
    calm = not (world.doubtful or world.clock_was_wrong or outcome.reason == "deadline")
    if outcome.verdict is Verdict.UNKNOWN and calm:
        world.complain(f"{what} is UNKNOWN, though nothing went wrong: {outcome}")


def _check_said(world: World, said: Said, by_message: dict[tuple[str, int], list[Seen]]) -> None:
    if said.activity or not said.token:
        return
    pushes = by_message[said.token, said.serial]
    what = f"message {said.serial} ({said.event} to {said.token[:8]})"
    if said.outcome is None:
        if said.error is None and not world.lives[said.life - 1].ended:
            world.complain(f"{what} has neither outcome nor error")
        if said.event == "start" and len(pushes) > 1:
            world.complain(f"{what}, a start, was processed {len(pushes)} times")
        return
    if said.outcome.token != said.token:
        world.complain(f"{what} got the outcome of another token")
    # A state of a lane may be carried out by a later life; its own outcome is the first life's.
    if world.crashes or said.outcome.verdict is Verdict.SUPERSEDED:
        return
    _check_outcome(world, what, said.outcome, len(pushes), starts=said.event == "start")


def _check_fan_out(
    world: World, fan_out: FanOut, by_message: dict[tuple[str, int], list[Seen]]
) -> None:
    given = fan_out.given
    what = f"fan-out {fan_out.serial}"
    named = "name" in given
    ended_with_process = world.crashes and fan_out.life < len(world.lives)
    for token in {each for each in fan_out.tokens if isinstance(each, str)}:
        times = len(by_message[token, fan_out.serial])
        if fan_out.event == "start" and times > 1:
            world.complain(f"{what}: a start was processed {times} times")
    if ended_with_process or fan_out.report is None:
        return
    by_token: dict[Any, list[Outcome]] = defaultdict(list)
    for outcome in fan_out.outcomes:
        by_token[outcome.token].append(outcome)
    for token, outcomes in by_token.items():
        if len(outcomes) > fan_out.tokens.count(token) > 0:
            world.complain(f"{what}: {token[:8]} has {len(outcomes)} outcomes")
        if token in fan_out.tokens and not named:
            times = len(by_message[token, fan_out.serial])
            starts = fan_out.event == "start"
            _check_outcome(world, f"{what} to {str(token)[:8]}", outcomes[0], times, starts=starts)
    report = fan_out.report
    if not fan_out.finished:
        return
    if not named and report.read != report.settled:
        world.complain(f"{what} read {report.read} tokens and settled {report.settled}")
    quiet = not set(given) & {"bad", "source_raises", "source_cancels", "callback_raises"}
    left = fan_out.asked_when_left
    slow = "bare" in given and given["source"] == "slow async"
    if left is not None and slow and fan_out.asked_for > left + 2:
        world.complain(f"{what} read on after its caller had left the iteration")
    through = given["deadline"] is None and "break_after" not in given and quiet
    if through and not named and not given.get("cancel_after"):
        if report.read != len(fan_out.tokens):
            world.complain(f"{what} read {report.read} of {len(fan_out.tokens)} tokens")
        if fan_out.read_through and len(fan_out.outcomes) != report.read:
            world.complain(f"{what} told {len(fan_out.outcomes)} outcomes of {report.read}")
    if "bad" in given and fan_out.read_through and not named and given["deadline"] is None:
        wrong = sum(each.verdict is Verdict.FIX_REQUEST for each in fan_out.outcomes)
        bad = sum(index < len(fan_out.tokens) for index in given["bad"])
        if wrong < bad:
            world.complain(f"{what} had {bad} bad tokens and {wrong} outcomes FIX_REQUEST")


def _check_order(world: World, token: str, pushes: list[Seen]) -> None:
    """A later state of one sender carries a later timestamp; nothing is newer than the end."""
    if _forgetful(world):
        return
    states = {}
    for push in pushes:
        if not push.starts:
            states.setdefault(push.serial, push)
    ordered = sorted(states.values(), key=lambda each: each.serial)
    if not (ordered and _is_ordered(world, token, ordered)):
        return
    dropped = [
        serial
        for serial, said in world.callers.said.items()
        if said.token == token
        and said.outcome is not None
        and said.outcome.verdict is Verdict.DROP_TOKEN
    ]
    for before, after in pairwise(ordered):
        # A token that was to be dropped, and is sent to again, begins anew.
        begins = any(before.serial <= serial < after.serial for serial in dropped)
        if after.timestamp <= before.timestamp and not begins:
            world.complain(
                f"{token[:8]}: state {after.serial} has timestamp {after.timestamp}, "
                f"not after {before.timestamp} of state {before.serial}"
            )
    ends = [each for each in ordered if each.event == "end"]
    if ends and ordered[-1] is not ends[0]:
        world.complain(f"{token[:8]}: state {ordered[-1].serial} follows the end")


def _forgetful(world: World) -> bool:
    """Whether a later process does not know the timestamps of an earlier one."""
    return world.began_too_late or (world.crashes > 0 and not world.plan.settings["journal"])


def _is_ordered(world: World, token: str, ordered: list[Seen]) -> bool:
    """Whether one lane or activity sent all of these; send() keeps no order."""
    first = world.callers.said.get(ordered[0].serial)
    return first is not None and (bool(first.activity) or first.token in world.callers.lane_tokens)


def _check_newest(world: World, by_token: dict[str, list[Seen]]) -> None:
    """What a phone shows last is the newest state that its sender calls accepted."""
    if _forgetful(world):
        return
    last_of: dict[str, Said] = {}
    for said in world.callers.said.values():
        if said.token in world.callers.lane_tokens:
            last_of[said.token] = said
    for token, said in last_of.items():
        if said.outcome is None or not said.outcome.accepted:
            continue
        shown = _shown(by_token[token])
        if shown != said.serial:
            world.complain(f"lane {token[:8]} shows state {shown}, not {said.serial}")
    for name, said in world.callers.last_accepted.items():
        for token in sorted(world.callers.members.get(name, ())):
            shown = _shown(by_token[token])
            # A newer state may have reached some before the guard against bad tokens stopped it.
            if token not in world.callers.given_up.get(name, ()) and shown < said:
                world.complain(f"{token[:8]} of {name} shows state {shown}, not {said}")


def _check_given_up(world: World) -> None:
    """Where nothing went wrong no token waits for a state until that is too old."""
    if world.doubtful or world.clock_was_wrong or world.crashes:
        return
    for name, gone in world.callers.given_up.items():
        late = [token for token, verdict in gone.items() if verdict is Verdict.EXPIRED]
        if late:
            world.complain(f"{len(late)} tokens of {name} were never sent a state: {late[0][:8]}")


def _shown(pushes: list[Seen]) -> int:
    """Return the serial of the state that a phone shows after these pushes, in order of arrival."""
    newest = 0
    shown = 0
    for push in pushes:
        if push.timestamp >= newest and not push.starts:
            newest, shown = push.timestamp, push.serial
    return shown


def _check_alerts(world: World, by_token: dict[str, list[Seen]]) -> None:
    """No alert of a lane is lost, and none rings twice while nothing is in doubt."""
    for said in world.callers.said.values():
        if not said.alert or said.token not in world.callers.lane_tokens or said.outcome is None:
            continue
        text = f"alert {said.serial}"
        rings = sum(each.alert == text for each in by_token[said.token])
        if said.outcome.accepted and not rings:
            world.complain(f"{text} is ACCEPTED and rang on no phone")
        calm = not (world.doubtful or world.clock_was_wrong or world.crashes)
        if rings > 1 and calm:
            world.complain(f"{text} rang {rings} times")


_MUST_GO = frozenset({"Push", "Link", "State", "Ticket", "Version", "Errand"})
_LOOKED_AT = 50
"""Members of one container."""


def _check_left_over(world: World) -> None:
    """After close, client and delivery hold no push, no link, no state."""
    if any("world ended early" in each for each in world.complaints):
        return
    late = sum(each.late_writes for each in world.network.wiretaps)
    if late:
        world.complain(f"{late} writes to connections that were lost or closing")
    life = world.lives[-1]
    left: dict[str, int] = defaultdict(int)
    for root in (life.client, life.delivery):
        for name, path in _held(root).items():
            left[f"{name} in {path}"] += 1
    for what, count in sorted(left.items())[:3]:
        world.complain(f"left after close: {count} x {what}")


def _held(root: object) -> dict[str, str]:
    """Return what must be gone and is still reachable inside our objects, with the way there."""
    found: dict[str, str] = {}
    known: set[int] = set()
    todo: list[tuple[object, Any]] = [(root, (None, type(root).__name__))]
    while todo:
        value, way = todo.pop()
        kind = type(value)
        if id(value) in known:
            continue
        known.add(id(value))
        if kind.__name__ in _MUST_GO and kind.__module__.startswith("apns_live"):
            found[kind.__name__] = _spelled(way)
            continue
        inside: Any = value
        if kind in _MAPPINGS:
            parts = [("[...]", each) for each in islice(inside.values(), _LOOKED_AT)]
            parts += [(" keys", each) for each in islice(inside, _LOOKED_AT)]
        elif kind in _CONTAINERS:
            parts = [("[...]", each) for each in islice(inside, _LOOKED_AT)]
        else:
            parts = [(name, getattr(value, name, None)) for name in _slots(kind)]
            parts += getattr(value, "__dict__", {}).items()
        todo += [(each, (way, name)) for name, each in parts if _is_looked_into(type(each))]
    return found


def _spelled(way: Any) -> str:
    before, name = way
    return name if before is None else f"{_spelled(before)}.{name}"


_MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
_CONTAINERS = (list, tuple, set, frozenset, deque)


@cache
def _is_looked_into(kind: type) -> bool:
    if kind in _MAPPINGS or kind in _CONTAINERS:
        return True
    ours = kind.__module__.startswith("apns_live") and ".testing" not in kind.__module__
    return ours and not issubclass(kind, type)


@cache
def _slots(kind: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else slots
    return tuple(name for name in names if not name.startswith("__"))
