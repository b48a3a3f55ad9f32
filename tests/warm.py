"""The command ``apns-live``, or a module of the tests, in processes of its own without a start-up each.

Starting Python and importing everything takes a second of CPU, and the tests run the command several
hundred times. So one process for each pytest worker imports everything once and forks a child for
each run, with the run's own words, folder, environment and streams. What `WarmCommand` starts is a
real process: signals, pipes and exit codes are the operating system's.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import json
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STATUS = struct.Struct("i")
_ROOT = Path(__file__).resolve().parents[1]


class WarmCommand(subprocess.Popen[Any]):
    """Runs ``apns-live``; the first argument is the list of its words, without a program.

    ``-m`` and a module before them run that module instead.

    What Python reads from the environment before its first line is that of the test process.
    """

    def _execute_child(self, *details: Any) -> None:
        named = inspect.signature(subprocess.Popen._execute_child).bind(self, *details).arguments  # type: ignore[attr-defined]
        pipes = [
            named[name]
            for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        ]
        environment = dict(os.environ if named["env"] is None else named["env"])
        streams = [pipes[0], pipes[3], pipes[5]]
        streams = [own if given == -1 else given for own, given in enumerate(streams)]
        self._status, status = socket.socketpair()
        order = {
            "words": [str(word) for word in named["args"]],
            "cwd": str(named["cwd"] or Path.cwd()),
            "env": environment,
        }
        try:
            with _starting:
                starter = _starter()
            starter.start(order, [*streams, status.fileno()])
            status.close()
            self.pid = _STATUS.unpack(self._status.recv(_STATUS.size, socket.MSG_WAITALL))[0]
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        flags = socket.MSG_WAITALL if not wait_flags & os.WNOHANG else socket.MSG_DONTWAIT
        try:
            said = self._status.recv(_STATUS.size, flags)
        except BlockingIOError:
            return 0, 0
        self._status.close()
        if not said:
            raise RuntimeError("the process that starts commands has ended")
        return self.pid, _STATUS.unpack(said)[0]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def run_command(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``apns-live`` to its end, with text in and out; ``options`` are those of `Popen`."""
    text = options.pop("input", None)
    options = {"stdin": subprocess.PIPE if text is not None else None, **options}
    with WarmCommand(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        out, err = process.communicate(text, timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


class _Starter:
    """The process that forks, as its parent sees it."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=_ROOT,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def start(self, order: dict[str, Any], streams: list[int]) -> None:
        """Let a command be started, with these streams and the socket that its status comes over."""
        socket.send_fds(self._orders, [json.dumps(order).encode()], streams)

    def stop(self) -> None:
        """End the process; children that still run are not touched."""
        self._orders.close()
        self._process.wait()


_starting = threading.Lock()
"""Commands may be started in threads, and there is one process that forks."""


@functools.cache
def _starter() -> _Starter:
    return _Starter()


def stop() -> None:
    """End what `WarmCommand` has started for itself."""
    if _starter.cache_info().currsize:
        _starter().stop()
        _starter.cache_clear()


def _serve(orders: socket.socket) -> None:
    """Fork for each order until the other side has gone. Returns in each child, to run its command."""
    _import_everything()
    gc.collect()
    gc.freeze()
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    waiting: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    woken.recv(4096)
                    _report_ended(waiting)
                    continue
                text, handles, _, _ = socket.recv_fds(orders, 1 << 20, 4)
                if not text:
                    raise SystemExit(0)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for one in (orders, woken, wakes, *waiting.values()):
                        one.close()
                    _become(json.loads(text), handles)
                    return
                for handle in handles[:3]:
                    os.close(handle)
                waiting[pid] = socket.socket(fileno=handles[3])
                waiting[pid].sendall(_STATUS.pack(pid))


def _report_ended(waiting: dict[int, socket.socket]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with waiting.pop(pid) as one, contextlib.suppress(BrokenPipeError):
            one.sendall(_STATUS.pack(status))


def _become(order: dict[str, Any], handles: list[int]) -> None:
    """Take on a run's streams, folder and environment."""
    for number, handle in enumerate(handles[:3]):
        os.dup2(handle, number)
    for handle in handles:
        os.close(handle)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    sys.argv = ["apns-live", *order["words"]]


def _run() -> None:
    """Run what `sys.argv` says."""
    if sys.argv[1:2] == ["-m"]:
        module = sys.argv[2]
        sys.argv[:3] = [module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        from apns_live.cli import main

        main()


def _run_and_leave() -> None:
    """Run it, do what is left to be done at an exit, and go.

    To take a thousand modules apart, as the interpreter does, takes longer than a short command. How
    an error or an interrupt ends a process is left to the interpreter.
    """
    status = 0
    try:
        _run()
    except SystemExit as leaving:
        if not isinstance(leaving.code, int | None):
            raise
        status = leaving.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise SystemExit(status) from None  # it tells of streams that are gone
    os._exit(status)


def _import_everything() -> None:
    import apns_live

    for found in pkgutil.walk_packages(apns_live.__path__, "apns_live."):
        if not found.name.endswith("__main__") and ".migrations" not in found.name:
            importlib.import_module(found.name)
    importlib.import_module("apns_live.cli.app").load()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    _run_and_leave()
