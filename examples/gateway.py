"""A gateway: refuses clients by their address before the banner, and recipients that a database does not know.

In this directory; the first command makes the database and permits two recipients:

    python3 gateway.py ann@example.org bob@example.org
    fastsmtp serve gateway:Gateway --store maildir:./mail

It listens on 127.0.0.1:1025. The database is ./gateway.sqlite, or the file that GATEWAY_DATABASE names. Any program may
change it at any time: recipients are looked up for each RCPT, blocked networks are read when a worker starts (SIGHUP
starts new ones). To block a network:

    python3 -c 'import gateway; gateway.block("192.0.2.0/24")'
"""

import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import ClassVar

from fastsmtp import Handler, Recipient, Reply, Session, WorkerInfo, inline

DATABASE = os.path.abspath(os.environ.get("GATEWAY_DATABASE", "gateway.sqlite"))
TABLES = """
    CREATE TABLE IF NOT EXISTS blocked (network TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS recipients (address TEXT PRIMARY KEY COLLATE NOCASE);
"""
BLOCKED = Reply(554, "5.7.1", "your network is not served here", close=True)
UNKNOWN = Reply(550, "5.1.1", "no such recipient")


class Connections(threading.local):
    """A connection to the database for each thread that asks for one."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)


class Gateway(Handler):
    connections: ClassVar[Connections]
    blocked: ClassVar[list[IPv4Network | IPv6Network]]

    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker: WorkerInfo) -> AsyncIterator[None]:
        # If there is no database this raises, the worker does not start, and the server says why.
        cls.connections = Connections()
        cls.blocked = [ip_network(row[0]) for row in cls.connections.database.execute("SELECT network FROM blocked")]
        yield

    @inline
    def welcome(self, session: Session) -> Reply | None:
        if session.peer.host == "unix":  # a unix socket's client has no address
            return None
        address = ip_address(session.peer.host.partition("%")[0])
        return BLOCKED if any(address in network for network in self.blocked) else None

    def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        # In the thread pool, for the database may block. If it is locked or broken this raises: the client gets 451.
        if not recipient.domain:  # <postmaster>, whom every server accepts (RFC 5321 4.5.1)
            return None
        rows = self.connections.database.execute("SELECT 1 FROM recipients WHERE address = ?", (recipient.address,))
        return None if rows.fetchone() else UNKNOWN


def block(*networks: str) -> None:
    """Add networks to the blocked ones."""
    _insert("INSERT OR IGNORE INTO blocked VALUES (?)", [str(ip_network(network)) for network in networks])


def permit(*addresses: str) -> None:
    """Add recipients."""
    _insert("INSERT OR IGNORE INTO recipients VALUES (?)", addresses)


def _insert(statement: str, values: Sequence[str]) -> None:
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.executescript(TABLES)
        database.executemany(statement, [(value,) for value in values])


if __name__ == "__main__":
    permit(*sys.argv[1:])
