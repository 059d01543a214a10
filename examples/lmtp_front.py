"""SMTP in front of an LMTP server such as Dovecot, which decides who is there and keeps the mail.

In this directory, with Dovecot's socket in LMTP:

    export LMTP=lmtp://unix:/run/dovecot/lmtp
    fastsmtp serve lmtp_front:Front --store forward:$LMTP

The server asks Dovecot at RCPT, so that nobody has to return mail for strangers. The store hands each message on: 250
means that Dovecot has it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from fastsmtp import Handler, Recipient, Reply, Session, WorkerInfo
from fastsmtp.client import HopError, Pool, TransferError, parse_hop


class Front(Handler):
    dovecot: ClassVar[Pool]

    @classmethod
    @asynccontextmanager
    async def lifespan(cls, worker: WorkerInfo) -> AsyncIterator[None]:
        cls.dovecot = Pool(parse_hop(os.environ["LMTP"]))
        yield
        await cls.dovecot.close()

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply:
        try:
            return (await self.dovecot.verify(recipient, session.server_name)).reply()
        except (HopError, TransferError):
            return Reply(451, "4.3.0", "the mailboxes cannot be reached, try again later")
