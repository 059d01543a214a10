"""A small mailbox server: one Maildir for each recipient, ./mailboxes/DOMAIN/NAME.

In this directory; the first command makes two mailboxes, and with them the domain example.org:

    python3 mailboxes.py ann@example.org bob@example.org
    fastsmtp serve mailboxes:Mailboxes

It listens on 127.0.0.1:1025. A domain is served if it has a directory, a recipient is known if its Maildir exists. No
--store: the 250 is this handler's own promise. It is sent when the message is in the mailbox of every recipient, with
its file and its name synced to the disk. If anything fails the message is in none of them and the client gets 451.
"""

import mailbox
import os
import re
import sys
import time
from pathlib import Path

from fastsmtp import Handler, Message, Recipient, Reply, Session
from fastsmtp.store.trace import trace_header

ROOT = Path("mailboxes").absolute()
# What may become the name of a directory: nothing with a slash, nothing that begins with a dot.
NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]{0,63}")

NO_RELAY = Reply(550, "5.7.1", "this domain is not served here")
NO_MAILBOX = Reply(550, "5.1.1", "no such mailbox")


def folder_of(recipient: Recipient) -> Path | None:
    """The Maildir of a recipient; None if there is none."""
    if not NAME.fullmatch(recipient.local) or not NAME.fullmatch(recipient.domain):
        return None
    folder = ROOT / recipient.domain / recipient.local.lower()
    return folder if (folder / "new").is_dir() else None


class Mailboxes(Handler):
    def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        if (
            not recipient.domain
        ):  # <postmaster>, whom every server accepts (RFC 5321 4.5.1): at the first domain we have
            recipient.domain = min(path.name for path in ROOT.iterdir())
        if folder_of(recipient):
            return None
        known = NAME.fullmatch(recipient.domain) and (ROOT / recipient.domain).is_dir()
        return NO_MAILBOX if known else NO_RELAY

    def data(self, session: Session, message: Message) -> None:
        octets = trace_header(message, time.time()) + message.content
        folders = {folder_of(recipient) for recipient in message.recipients}  # a recipient named twice gets one copy
        delivered: list[tuple[mailbox.Maildir, str]] = []
        try:
            for folder in folders:
                if folder is None:
                    raise FileNotFoundError("a mailbox is gone since its RCPT")
                maildir = mailbox.Maildir(folder, create=False)
                delivered.append((maildir, maildir.add(octets)))  # add syncs the file ...
                sync_directory(folder / "new")  # ... and this its name
        except BaseException:
            for maildir, key in delivered:
                maildir.discard(key)
            raise  # the client gets 451 and will try again


def sync_directory(path: Path) -> None:
    """Have the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(address: str) -> None:
    """Make a mailbox."""
    local, _, domain = address.lower().rpartition("@")
    if not NAME.fullmatch(local) or not NAME.fullmatch(domain):
        sys.exit(f"{address}: no address that could name a directory")
    (ROOT / domain).mkdir(parents=True, exist_ok=True)
    mailbox.Maildir(ROOT / domain / local)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        create(each)
