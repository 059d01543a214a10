"""Every transcript against real servers: in turns, and all at once behind a half-close; async and blocking handlers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.protocol.server_process import Client, ServerProcess
from tests.protocol.transcript import Transcript, load_all

HANDLERS: Final = ("AsyncRecorder", "ThreadedRecorder")
# By their settings, so that the servers of one group are not needed any more when the next one's are started.
TRANSCRIPTS: Final = sorted(load_all(), key=lambda transcript: (sorted(transcript.settings.items()), transcript.name))

Settings = tuple[tuple[str, str], ...]


def _settings(transcript: Transcript) -> Settings:
    return tuple(sorted(transcript.settings.items()))


class Servers:
    """One server for each handler, with the settings asked for last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings: Settings | None = None
        self._running: dict[str, ServerProcess] = {}

    def get(self, handler: str, settings: Settings) -> ServerProcess:
        """The server with this handler and these settings; starts it if it does not run."""
        if settings != self._settings:
            self.stop()
            self._settings = settings
            for each in HANDLERS:
                self._running[each] = ServerProcess(
                    each, dict(settings), self._folder / f"{each}-{len(list(self._folder.iterdir()))}"
                )
        return self._running[handler]

    def stop(self) -> None:
        """End them, and look at how they fared."""
        running, self._running = list(self._running.values()), {}
        codes = [server.stop() for server in running]
        assert codes == [0] * len(codes), "".join(line for server in running for line in server.log)
        for server in running:
            assert not [line for line in server.log if "internal error" in line]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("records"))
    yield servers
    servers.stop()


_each_transcript = pytest.mark.parametrize(
    ("transcript", "handler"),
    [
        pytest.param(transcript, handler, id=f"{transcript.name}-{handler}")
        for transcript in TRANSCRIPTS
        for handler in HANDLERS
    ],
)


@_each_transcript
def test_in_turns(servers: Servers, transcript: Transcript, handler: str) -> None:
    """The client waits for the replies to all it has said; at the end it half-closes, if the server has not closed."""
    server = servers.get(handler, _settings(transcript))
    parts = []
    with Client(server.port) as client:
        for turn in transcript.turns:
            client.send(turn.says)
            parts.append(client.read_lines(len(turn.answers)))
        if not transcript.closes:
            client.end()
        surplus = client.read_to_the_end()
    _check(transcript, parts, surplus, server)


def _check(transcript: Transcript, parts: list[bytes], surplus: bytes, server: ServerProcess) -> None:
    messages = server.new_messages()
    assert b"".join(parts) == transcript.expected(len(transcript.turns), messages)
    assert surplus == b""
    transcript.check_messages(messages)
    for number, part in enumerate(parts):
        assert part.count(b"\r\n") == len(transcript.turns[number].answers)


@_each_transcript
def test_all_in_one_flight(servers: Servers, transcript: Transcript, handler: str) -> None:
    """The client waits for nothing and half-closes: what came completely is answered, then the server closes."""
    server = servers.get(handler, _settings(transcript))
    with Client(server.port) as client:
        client.send(transcript.everything)
        client.end()
        output = client.read_to_the_end()
    messages = server.new_messages()
    assert output == transcript.expected(len(transcript.turns), messages)
    transcript.check_messages(messages)
