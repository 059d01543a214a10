"""Accepts every mail, with reply texts of its own.

In this directory:

    fastsmtp serve accept:Accept --store maildir:./mail

It listens on 127.0.0.1:1025. The store keeps the mail; without --store it would be accepted and forgotten.
"""

from fastsmtp import Handler, Message, Recipient, Reply, Sender, Session, inline


class Accept(Handler):
    @inline
    def mail(self, session: Session, sender: Sender) -> Reply:
        return Reply(250, "2.1.0", f"{sender.address or 'the null sender'} is accepted")

    @inline
    def rcpt(self, session: Session, recipient: Recipient) -> Reply:
        return Reply(250, "2.1.5", f"{recipient.address} is accepted")

    @inline
    def data(self, session: Session, message: Message) -> Reply:
        return Reply(250, "2.0.0", f"{message.size} octets are accepted")
