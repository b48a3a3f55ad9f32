"""Pushes a second through a delay: whether the pool uses what eight connections can carry.

One connection carries at most min(streams / RTT, window / (body x RTT)) pushes a second; with the
65,535-byte connection window that APNs is seen to give, 350-byte bodies and 80 ms that is 2,341. The
sender's pool starts with one connection and grows by what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.contenders import BODY_BYTES, Plan, our_client, our_update
from benchmarks.relay import relay
from benchmarks.report import Bar, Report
from benchmarks.sink import sink
from tests.programs import find_program

DELAY = 0.040
WINDOW, STREAMS = 65_535, 1_000
WARM_UP, MEASURED = 5.0, 20.0
SERVER_CORE, SENDER_CORE = 0, 1
# Bytes that one push takes on the wire beside its body, and its answer: measured through the relay.
REQUEST_EXTRA, ANSWER = 130, 60


def carries(connections: int, body: int, round_trip: float = 2 * DELAY) -> float:
    """Return the pushes a second that so many connections can carry at most."""
    return connections * min(STREAMS / round_trip, WINDOW / (body * round_trip))


# --- what the relay alone carries


def _sink(listener: socket.socket, unit: int) -> None:
    """Answer each ``unit`` bytes with `ANSWER` bytes, on every connection."""

    def answer(peer: socket.socket) -> None:
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = 0
            while data := peer.recv(262_144):
                whole, left = divmod(left + len(data), unit)
                if whole:
                    peer.sendall(b"a" * ANSWER * whole)

    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(peer,), daemon=True).start()


async def _pump(port: int, connections: int, body: int, seconds: float) -> float:
    """Return push-sized units a second through a relay, each connection kept at its window."""
    unit, in_flight, done = body + REQUEST_EXTRA, min(STREAMS, WINDOW // body), 0
    begin = time.perf_counter() + 1.0

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"r" * unit * in_flight)
        left = 0
        while (now := time.perf_counter()) < begin + seconds:
            answers, left = divmod(left + len(await reader.read(262_144)), ANSWER)
            writer.write(b"r" * unit * answers)
            done += answers if now >= begin else 0
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return done / seconds


def relay_alone(connections: int, body: int, seconds: float = 5.0) -> float:
    """Return what the relay carries of plain bytes with the same windows, in pushes a second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_sink, args=(listener, body + REQUEST_EXTRA), daemon=True).start()
        with relay(listener.getsockname()[1], DELAY, SERVER_CORE) as running:
            return asyncio.run(_pump(running.port, connections, body, seconds))


def measured_round_trip(port: int) -> float:
    """Return the median seconds that one byte takes there and back through a relay to an echo."""
    times = []
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(15):
            begin = time.perf_counter()
            peer.sendall(b"r")
            peer.recv(ANSWER)
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def relay_round_trip() -> float:
    """Return the round trip that the relay really makes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_sink, args=(listener, 1), daemon=True).start()
        with relay(listener.getsockname()[1], DELAY, SERVER_CORE) as running:
            return measured_round_trip(running.port)


# --- the sender (its own process)


async def sustain(plan: Plan, seconds: float) -> dict[str, Any]:
    """Send for ``WARM_UP + seconds``; return accepted pushes and connections for each second."""
    update = our_update(plan.body_bytes)
    every = (f"{number:064x}" for number in itertools.count())
    accepted: list[int] = []
    open_at: list[int] = []
    failed = 0
    async with our_client(plan) as client:
        begin, cpu = time.perf_counter(), time.process_time()
        async with client.fan_out(update, every) as run:
            async for outcome in run:
                second = int(time.perf_counter() - begin)
                if second >= WARM_UP + seconds:
                    break
                while len(accepted) <= second:
                    accepted.append(0)
                    open_at.append(_open_connections(client))
                if outcome.accepted:
                    accepted[second] += 1
                else:
                    failed += 1
        cpu = time.process_time() - cpu
    return {"accepted": accepted, "connections": open_at, "failed": failed, "cpu": cpu}


def _open_connections(client: Any) -> int:
    statistics = client.statistics()
    connections = statistics.connections
    return connections if isinstance(connections, int) else len(connections)


def _sender(port: int, ca_file: str, connections: int, body: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.distance", "--sender", str(port), ca_file]
    command += ["--connections", str(connections), "--body-bytes", str(body)]
    command += ["--seconds", str(seconds)]
    if taskset := find_program("taskset"):
        command = [taskset, "-c", str(SENDER_CORE), *command]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode:
        raise RuntimeError(f"the sender failed: {run.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def _one(report: Report, connections: int, body: int, seconds: float) -> None:
    alone = relay_alone(connections, body)
    with (
        sink(STREAMS, SERVER_CORE) as server,
        relay(server.port, DELAY, SERVER_CORE) as between,
    ):
        seen = _sender(between.port, server.ca_file, connections, body, seconds)
    begin = int(WARM_UP)
    rate = sum(seen["accepted"][begin : begin + int(seconds)]) / seconds
    bound = min(carries(connections, body), alone)
    pushes = sum(seen["accepted"])
    report.rows.append(
        (
            str(connections),
            f"{rate:,.0f}",
            f"{carries(connections, body):,.0f}",
            f"{alone:,.0f}",
            f"{rate / bound:.0%}",
            str(seen["connections"][begin]),
            f"{seen['cpu'] / max(1, pushes) * 1e6:.1f}",
            str(seen["failed"]),
        )
    )
    report.bars.append(
        Bar(f"{connections} connections: share of what they can carry", rate / bound, 0.8)
    )
    report.bars.append(
        Bar(
            f"max_connections={connections}: open after 5 s",
            seen["connections"][begin],
            connections,
        )
    )
    report.raw[str(connections)] = {
        **seen,
        "relay_alone": alone,
        "bytes_up_a_push": between.carried.up / max(1, pushes),
        "bytes_down_a_push": between.carried.down / max(1, pushes),
    }


def main(arguments: list[str]) -> int:
    """Measure with one and with eight connections."""
    parser = argparse.ArgumentParser(prog="benchmarks distance", description=__doc__)
    parser.add_argument("--sender", nargs=2, metavar=("PORT", "CA"), help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES)
    parser.add_argument("--seconds", type=float, default=MEASURED)
    parser.add_argument("--relay-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--enforce", action="store_true")
    given = parser.parse_args(arguments)
    if given.sender:
        port, ca_file = given.sender
        plan = Plan(int(port), ca_file, 0, given.body_bytes, connections=given.connections[0])
        print(json.dumps(asyncio.run(sustain(plan, given.seconds))))
        return 0
    if given.relay_only:
        print(f"round trip {relay_round_trip() * 1e3:.1f} ms")
        for connections in given.connections:
            alone = relay_alone(connections, given.body_bytes)
            print(
                f"{connections}: {alone:,.0f}/s of {carries(connections, given.body_bytes):,.0f}/s"
            )
        return 0
    report = Report("distance", "Throughput at a distance", conditions())
    report.settings = {
        "server": f"benchmarks/sink.py, {STREAMS} streams, {WINDOW:,}-byte windows, what was read "
        f"is granted again after each read; on core {SERVER_CORE} with the relay",
        "relay": f"a process of its own, {DELAY * 1e3:.0f} ms each way; round trip measured "
        f"{relay_round_trip() * 1e3:.1f} ms",
        "sender": f"fan_out on core {SENDER_CORE}, bodies of {given.body_bytes} bytes, "
        f"{MEASURED:.0f} s after the first {WARM_UP:.0f}"
        if given.seconds == MEASURED
        else f"fan_out on core {SENDER_CORE}, {given.seconds:.0f} s",
    }
    report.columns = (
        "max_connections",
        "pushes/s",
        "can carry",
        "relay alone",
        "share",
        "open after 5 s",
        "CPU us/push",
        "not accepted",
    )
    for connections in given.connections:
        _one(report, connections, given.body_bytes, given.seconds)
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 1 if given.enforce and not report.met else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
