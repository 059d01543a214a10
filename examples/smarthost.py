"""A smarthost: takes the mail of our own machines into a queue, from which it goes to a relay.

In this directory; the first command takes mail, the second one, on this or on any other machine that has the queue,
passes it on and tries again until it is delivered:

    fastsmtp serve smarthost:Smarthost --store queue:./outgoing
    fastsmtp deliver --from queue:./outgoing --to "smtp://user@relay.example:587?password=file:./password"

With --to mx: it goes to each domain's own hosts. docs/delivery.md has the rest.
"""

from ipaddress import ip_address, ip_network

from fastsmtp import Handler, Recipient, Reply, Session, inline

OURS = [ip_network("127.0.0.0/29"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


class Smarthost(Handler):
    @inline
    def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        peer = ip_address(session.peer.host)
        return None if any(peer in network for network in OURS) else Reply(550, "5.7.1", "relaying denied")
