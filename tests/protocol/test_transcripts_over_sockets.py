"""Every transcript against real servers: in turns, and all at once behind a half-close; async and blocking handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def in_turns(transcript: Transcript, client: Client) -> bytes:
    """The client waits for the replies to all it has said; at the end it half-closes, if the server has not closed."""
    output = b""
    for turn in transcript.turns:
        client.send(turn.says)
        reply = client.read_lines(len(turn.answers))
        assert reply.count(b"\r\n") == len(turn.answers)
        output += reply
        if turn.tls:
            client.start_tls()
    if not transcript.closes:
        client.end()
    return output + client.read_to_the_end()


def in_one_flight(transcript: Transcript, client: Client) -> bytes:
    """The client waits for nothing and half-closes: what came completely is answered, then the server closes."""
    output = b""
    for turn in transcript.turns:
        client.send(turn.says)
        if turn.tls:
            said = "".join("".join(each.answers) for each in transcript.turns[: transcript.turns.index(turn) + 1])
            output += client.read_lines(said.count("\r\n") - output.count(b"\r\n"))
            client.start_tls()
    client.end()
    return output + client.read_to_the_end()


# In this order, so that each server is started once.
CASES: Final = [
    pytest.param(transcript, handler, play, id=f"{transcript.name}-{handler}-{play.__name__}")
    for transcript in TRANSCRIPTS
    for handler in HANDLERS
    for play in (in_turns, in_one_flight)
]


@pytest.mark.parametrize(("transcript", "handler", "play"), CASES)
def test_over_sockets(
    servers: Servers, transcript: Transcript, handler: str, play: Callable[[Transcript, Client], bytes]
) -> None:
    server = servers.get(handler, _settings(transcript))
    with Client(server.port) as client:
        output = play(transcript, client)
    messages = server.new_messages()
    assert output == transcript.expected(len(transcript.turns), messages)
    transcript.check_messages(messages)
