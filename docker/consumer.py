"""What the consumer of compose.yaml does with a message: a line in its log. Put your work here.

A function that returns is done with the message. It may raise Retry or Reject of `fastsmtp.queue`; after any other
exception the message is tried again later.
"""

from email.parser import BytesHeaderParser

from fastsmtp.queue import Item


def receive(item: Item) -> None:
    """In a thread of the consumer: may block."""
    header = BytesHeaderParser().parsebytes(bytes(item.content))
    line = f"{item.sender.address}, {len(item.content)} octets: {header['subject']}\n"
    print(line, end="", flush=True)  # in one piece: other threads print, too
