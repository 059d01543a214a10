"""Inbound mail for an application: any number of machines accept, any number of others work through what has come.

    fastsmtp serve inbound:Inbound --store postgresql://app@db.example/mail --listen 0.0.0.0:25
    fastsmtp consume inbound:handle --from postgresql://app@db.example/mail --workers 4

A message gets its 250 when PostgreSQL has committed it. After a crash `handle` may see a message twice, so what it does
goes by `item.message_id`. With ``queue:./queue`` instead of the URL the same runs on one machine, without PostgreSQL.
"""

import json
from email import message_from_bytes, policy
from pathlib import Path

from fastsmtp import Handler, Recipient, Reply, Session, inline
from fastsmtp.queue import Item

TICKETS = Path("tickets")


class Inbound(Handler):
    @inline
    def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        return None if recipient.domain == "tickets.example" else Reply(550, "5.7.1", "relaying denied")


def handle(item: Item) -> None:
    message = message_from_bytes(bytes(item.content), policy=policy.SMTP)
    ticket = {"from": item.sender.address, "to": item.recipients[0].local, "subject": str(message["Subject"])}
    TICKETS.mkdir(exist_ok=True)
    (TICKETS / f"{item.message_id}.json").write_text(json.dumps(ticket))
