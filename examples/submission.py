"""Message submission: users log in, and send in their own name only.

In this directory; the first command asks for a password, mail.pem is a certificate with its key:

    python3 submission.py ann@example.org
    fastsmtp serve submission:Submission --store maildir:./outgoing --require-auth --tls-certfile mail.pem \\
        --listen "127.0.0.1:1587 require_tls" --listen "127.0.0.1:1465 implicit_tls"

The database is ./users.sqlite; it may change while the server runs. A user's name is an address: the only sender that
the user may have. Of a password a hash is kept, made by scrypt, which takes 16 MB and some 70 ms for each login.
"""

import getpass
import hashlib
import hmac
import os
import sqlite3
import sys
from contextlib import closing

from fastsmtp import REJECT, Answer, Credentials, Handler, Reply, Sender, Session, inline

DATABASE = os.path.abspath("users.sqlite")
NOBODY = (b"sixteen octets..", b"")  # salt and hash: who does not exist takes as long as who does
NOT_YOURS = Reply(550, "5.7.1", "this is not your address")


class Submission(Handler):
    def auth(self, session: Session, credentials: Credentials) -> Answer:
        # In the thread pool. If the database is locked or broken this raises: the client gets 454, and tries again.
        if credentials.password is None or credentials.authzid:  # only PLAIN and LOGIN, as oneself, are for us
            return REJECT
        salt, stored = find(credentials.username) or NOBODY
        return None if hmac.compare_digest(hashed(credentials.password, salt), stored) else REJECT

    @inline
    def mail(self, session: Session, sender: Sender) -> Answer:
        return None if sender.address.lower() == (session.user or "").lower() else NOT_YOURS


def hashed(password: str, salt: bytes) -> bytes:
    """What is kept of a password."""
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def find(name: str) -> tuple[bytes, bytes] | None:
    """The salt and the hash of a user."""
    with closing(sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT salt, hash FROM users WHERE name = ?", (name,))
        row: tuple[bytes, bytes] | None = rows.fetchone()
    return row


if __name__ == "__main__":
    salt = os.urandom(16)
    secret = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY COLLATE NOCASE, salt, hash)")
        connection.execute("REPLACE INTO users VALUES (?, ?, ?)", (sys.argv[1], salt, hashed(secret, salt)))
