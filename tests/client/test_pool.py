"""Connections that are kept: how many, how long, and what happens when the hop has hung up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fastsmtp.client import Patience, Pool, TransferError
from tests.client.hops import CLOSE, CONTENT, PLAIN, FakeHop, outgoing, run, running, to

PATIENCE = Patience(connect=5, command=5, block=5, end=5)


async def send(pool: Pool) -> list[int]:
    return [answer.code for answer in (await pool.send(outgoing(), "client.example")).answers]


def test_a_connection_is_used_again() -> None:
    async def main() -> None:
        async with running(FakeHop()) as fake:
            pool = Pool(fake.hop, PATIENCE)
            for _ in range(3):
                assert await send(pool) == [250]
            assert fake.connections == 1
            await pool.close()
            assert fake.verbs[-1] == "QUIT"

    run(main())


def test_there_are_no_more_connections_than_allowed() -> None:
    async def main() -> None:
        async with running(FakeHop()) as fake:
            pool = Pool(replace(fake.hop, connections=2), PATIENCE)
            assert await asyncio.gather(*(send(pool) for _ in range(20))) == [[250]] * 20
            assert fake.connections == 2
            await pool.close()

    run(main())


def test_an_idle_connection_is_closed() -> None:
    async def main() -> None:
        async with running(FakeHop()) as fake:
            pool = Pool(replace(fake.hop, idle_seconds=0.05), PATIENCE)
            await send(pool)
            await asyncio.to_thread(fake.join)
            assert fake.verbs[-1] == "QUIT"
            await send(pool)
            assert fake.connections == 2
            await pool.close()

    run(main())


@pytest.mark.parametrize("answer", [CLOSE, "421 4.3.2 goodbye"])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_a_hop_that_hangs_up_on_a_kept_connection_is_called_again(verb: str, answer: str) -> None:
    async def main() -> None:
        async with running(FakeHop(PLAIN)) as fake:
            pool = Pool(fake.hop, PATIENCE)
            await send(pool)
            fake.answers[verb] = [answer]
            assert await send(pool) == [250]
            assert (fake.connections, len(fake.contents)) == (2, 2)
            await pool.close()

    run(main())


def test_a_closed_connection_is_noticed_before_it_is_used() -> None:
    async def main() -> None:
        async with running(FakeHop()) as fake:
            pool = Pool(fake.hop, PATIENCE)
            await send(pool)
            fake.hang_up()
            await asyncio.sleep(0)
            assert await send(pool) == [250]
            assert fake.connections == 2
            await pool.close()

    run(main())


def test_after_the_content_nothing_is_sent_a_second_time() -> None:
    async def main() -> None:
        async with running(FakeHop()) as fake:
            pool = Pool(fake.hop, PATIENCE)
            await send(pool)
            fake.answers["."] = [CLOSE]
            with pytest.raises(TransferError):
                await send(pool)
            assert len(fake.contents) == 2
            assert await send(pool) == [250]
            await pool.close()

    run(main())


def test_a_recipient_is_verified_without_a_message() -> None:
    async def main() -> None:
        async with running(FakeHop(answers={"RCPT": ["550 5.1.1 no such user"]}, lmtp=True)) as fake:
            pool = Pool(fake.hop, PATIENCE)
            answers = [await pool.verify(to("bob@b.example")[0], "client.example") for _ in range(2)]
            assert [str(answer) for answer in answers] == ["550 5.1.1 no such user", "250 2.1.5 ok"]
            assert await send(pool) == [250]
            await pool.close()
            size = f" SIZE={len(CONTENT)}"
            assert fake.commands[1:] == [
                "MAIL FROM:<> SIZE=0",
                "RCPT TO:<bob@b.example>",
                "RSET",
                "MAIL FROM:<> SIZE=0",
                "RCPT TO:<bob@b.example>",
                "RSET",
                f"MAIL FROM:<alice@example.com>{size}",
                "RCPT TO:<bob@example.org>",
                f"BDAT {len(CONTENT)} LAST",
                "QUIT",
            ]

    run(main())
