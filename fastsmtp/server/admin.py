"""The admin process: metrics, health and control over HTTP. A child of the master that never touches mail.

It reads the scoreboard and signals the master, or asks it what no signal can carry. So it answers while workers are
busy, stopped or not there. It holds no listener of mail, and does not outlive the master. Everybody who reaches the
address may read; who wants to control needs the unix socket, which its mode protects, or the token.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import re
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from .columns import State
from .control import NoAnswerError, RefusedError
from .http import HTTPServer, Request, Response, Stream, text
from .metrics import Metrics
from .page_files import page_files
from .queue_watch import QueueWatch
from .scoreboard import Scoreboard
from .status import Facts, status, why_not_ready
from .trace_streams import TraceStreams, read_trace
from .wires import Wires

_JSON_LINES: Final = "application/jsonl"
_log = logging.getLogger("fastsmtp.admin")


def run(listening: socket.socket, scoreboard: Scoreboard, facts: Facts, wires: Wires) -> int:
    """Be the admin process until TERM. In the child process; returns the exit code."""
    wires.traces.keep_receiver()
    asyncio.run(_main(listening, scoreboard, facts, wires))
    return 0


async def _main(listening: socket.socket, scoreboard: Scoreboard, facts: Facts, wires: Wires) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, wires.log_files.reopen)
    traces = TraceStreams(wires.traces)
    traces.start(loop)
    admin = Admin(scoreboard, facts, wires, traces)
    async with admin.queue:
        await HTTPServer(admin.answer).serve(listening, stopped)


class _Path(NamedTuple):
    method: str
    needs_control: bool  # the right to control the server
    show: Callable[[Request], Response | Stream]


class Admin:
    """What there is to ask for."""

    def __init__(self, scoreboard: Scoreboard, facts: Facts, wires: Wires, traces: TraceStreams) -> None:
        self._scoreboard = scoreboard
        self._facts = facts
        self._control = wires.control
        self._notice = wires.notice
        self._traces = traces
        self.queue = QueueWatch(facts.queue)
        self._metrics = Metrics(scoreboard, lambda: self.queue.latest)
        self._told_to_stop = False
        self._paths = {
            "/metrics": _Path("GET", False, self._show_metrics),
            "/livez": _Path("GET", False, self._show_life),
            "/readyz": _Path("GET", False, self._show_readiness),
            "/status": _Path("GET", False, self._show_status),
            "/trace": _Path("GET", True, self._trace),  # mail addresses are not for everybody
            "/reload": _Path("POST", True, self._reload),
            "/scale": _Path("POST", True, self._scale),
            "/stop": _Path("POST", True, self._stop),
            **{path: _Path("GET", False, file.show) for path, file in page_files().items()},
        }

    def answer(self, request: Request) -> Response | Stream:
        """The response to a request."""
        if request.path not in self._paths:
            return text(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._paths)}")
        method, needs_control, show = self._paths[request.path]
        if (request.method if request.method != "HEAD" else "GET") != method:
            allowed = "GET, HEAD" if method == "GET" else method
            return text(HTTPStatus.METHOD_NOT_ALLOWED, f"allowed: {allowed}", {"Allow": allowed})
        if needs_control and not self._may_control(request):
            _log.warning("%s refused: without the token", request.path)
            return text(HTTPStatus.FORBIDDEN, "control needs the unix socket, or Authorization: Bearer TOKEN")
        return show(request)

    def _may_control(self, request: Request) -> bool:
        if request.local:
            return True
        scheme, _, given = request.fields.get("authorization", "").partition(" ")
        if self._facts.token is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode("latin-1"), self._facts.token.encode("latin-1"))

    # -- reading ------------------------------------------------------------------------------------------------------

    def _show_metrics(self, request: Request) -> Response:
        return Response(HTTPStatus.OK, *self._metrics.page(request.fields.get("accept", "")))

    def _show_life(self, request: Request) -> Response:
        if os.getppid() != self._facts.pid:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "the master is gone")
        return text(HTTPStatus.OK, "alive")

    def _show_readiness(self, request: Request) -> Response:
        reason = why_not_ready(self._scoreboard)
        return text(HTTPStatus.SERVICE_UNAVAILABLE, reason) if reason else text(HTTPStatus.OK, "ready")

    def _show_status(self, request: Request) -> Response:
        found = status(self._scoreboard, self._facts, self._notice.read(), self.queue.latest)
        body = json.dumps(found, indent=1).encode()
        return Response(HTTPStatus.OK, body + b"\n", "application/json")

    def _trace(self, request: Request) -> Response | Stream:
        try:
            wanted, duration = read_trace(request.query, self._facts.listeners)
        except ValueError as error:
            return text(HTTPStatus.BAD_REQUEST, str(error))
        if request.method == "HEAD":
            return Response(HTTPStatus.OK, b"", _JSON_LINES)
        if self._traces.is_full:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "too many traces at a time")
        _log.info("a trace begins: %s", wanted.text)
        return Stream(lambda: self._traces.trace(wanted, duration), _JSON_LINES)

    # -- control ------------------------------------------------------------------------------------------------------

    def _reload(self, request: Request) -> Response:
        return self._signal(signal.SIGHUP, "reloading")

    def _scale(self, request: Request) -> Response:
        found = re.fullmatch(r"workers=([0-9]{1,6})", request.query)
        if found is None:
            return text(HTTPStatus.BAD_REQUEST, "expected /scale?workers=N")
        try:
            return text(HTTPStatus.ACCEPTED, self._control.ask("scale", workers=int(found[1])))
        except RefusedError as error:
            return text(HTTPStatus.CONFLICT, str(error))
        except NoAnswerError as error:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def _stop(self, request: Request) -> Response:
        response = self._signal(signal.SIGTERM, "stopping: sessions are drained")
        self._told_to_stop = True
        return response

    def _signal(self, number: signal.Signals, answer: str) -> Response:
        # A second TERM would cut the sessions; a request that is sent twice shall not.
        if self._told_to_stop or self._scoreboard.server().state is State.DRAINING:
            return text(HTTPStatus.CONFLICT, "draining already")
        if os.getppid() != self._facts.pid:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "the master is gone")
        os.kill(self._facts.pid, number)
        _log.info("%s sent to the master, as asked over %s", number.name, self._facts.admin)
        return text(HTTPStatus.ACCEPTED, answer)
