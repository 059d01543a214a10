"""Final delivery over LMTP: each recipient has a Maildir, ./boxes/NAME, and an answer of its own.

In this directory; the first command makes two boxes:

    python3 lmtp_delivery.py ann bob
    fastsmtp serve lmtp_delivery:Delivery --listen "unix:./lmtp.sock lmtp"

The part before the @ is the box, whatever the domain; what stands behind a + is ignored. 250 means: in the box, synced
to the disk. A box that cannot be written gets 451, and the client tries again for that recipient only.
"""

import logging
import mailbox
import os
import re
import sys
import time
from pathlib import Path

from fastsmtp import Answer, Handler, Message, Recipient, Reply, Session
from fastsmtp.store.trace import trace_header

BOXES = Path("boxes").absolute()
NAME = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9_.-]{0,63})(?:\+.*)?")  # what may become the name of a directory
UNKNOWN = Reply(550, "5.1.1", "no such box")
BROKEN = Reply(451, "4.2.0", "this box cannot be written now")


class Delivery(Handler):
    def rcpt(self, session: Session, recipient: Recipient) -> Answer:
        return None if (box_of(recipient) / "new").is_dir() else UNKNOWN

    def data(self, session: Session, message: Message) -> list[Answer]:
        octets = trace_header(message, time.time()) + message.content
        boxes = [box_of(recipient) for recipient in message.recipients]
        answers = {box: deliver(octets, box) for box in set(boxes)}  # a box named twice gets one copy
        return [answers[box] for box in boxes]


def box_of(recipient: Recipient) -> Path:
    match = NAME.fullmatch(recipient.local)
    return BOXES / match[1].lower() if match else BOXES / "no such box"


def deliver(octets: bytes, box: Path) -> Answer:
    try:
        mailbox.Maildir(box, create=False).add(octets)  # syncs the file ...
        new = os.open(box / "new", os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(new)  # ... and this its name
        os.close(new)
    except OSError:
        logging.getLogger("delivery").exception("%s", box)
        return BROKEN
    return None


if __name__ == "__main__":
    BOXES.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        mailbox.Maildir(BOXES / name.lower())
