"""The admin process: metrics, health and control over HTTP. A child of the master that never touches mail.

It reads the scoreboard and signals the master, so it answers while workers are busy, stopped or not there. It holds no
listener of mail, and does not outlive the master. Everybody who reaches the address may read; who wants to control
needs the unix socket, which its mode protects, or the token.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus

from .columns import State
from .http import HTTPServer, Request, Response, text
from .metrics import Metrics
from .queue_watch import QueueWatch
from .scoreboard import Scoreboard
from .status import Facts, status, why_not_ready

_log = logging.getLogger("fastsmtp.admin")


def run(listening: socket.socket, scoreboard: Scoreboard, facts: Facts) -> int:
    """Be the admin process until TERM. In the child process; returns the exit code."""
    asyncio.run(_main(listening, Admin(scoreboard, facts)))
    return 0


async def _main(listening: socket.socket, admin: Admin) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with admin.queue:
        await HTTPServer(admin.answer).serve(listening, stopped)


class Admin:
    """What there is to ask for."""

    def __init__(self, scoreboard: Scoreboard, facts: Facts) -> None:
        self._scoreboard = scoreboard
        self._facts = facts
        self.queue = QueueWatch(facts.queue)
        self._metrics = Metrics(scoreboard, lambda: self.queue.latest)
        self._told_to_stop = False
        self._paths: dict[str, tuple[str, Callable[[Request], Response]]] = {
            "/metrics": ("GET", self._show_metrics),
            "/livez": ("GET", self._show_life),
            "/readyz": ("GET", self._show_readiness),
            "/status": ("GET", self._show_status),
            "/reload": ("POST", self._reload),
            "/stop": ("POST", self._stop),
        }

    def answer(self, request: Request) -> Response:
        """The response to a request."""
        if request.path not in self._paths:
            return text(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._paths)}")
        method, show = self._paths[request.path]
        if (request.method if request.method != "HEAD" else "GET") != method:
            allowed = "GET, HEAD" if method == "GET" else method
            return text(HTTPStatus.METHOD_NOT_ALLOWED, f"allowed: {allowed}", {"Allow": allowed})
        if method == "POST" and not self._may_control(request):
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
        body = json.dumps(status(self._scoreboard, self._facts, self.queue.latest), indent=1).encode()
        return Response(HTTPStatus.OK, body + b"\n", "application/json")

    # -- control ------------------------------------------------------------------------------------------------------

    def _reload(self, request: Request) -> Response:
        return self._signal(signal.SIGHUP, "reloading")

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
