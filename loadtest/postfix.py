"""A Postfix of our own, in a directory of its own: it accepts mail and keeps it in its hold queue."""

from __future__ import annotations

import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

_START_DEADLINE = 20.0  # seconds

# Stock settings but for where things are. HOLD spares Postfix its queue manager: what is measured is smtpd and cleanup.
_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/spool
data_directory = {directory}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
myhostname = mx.example
mydestination =
alias_maps =
alias_database =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_data_restrictions = check_client_access static:HOLD
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A Postfix that runs; needs root, as Postfix does.

    Args:
        directory: an empty one, which others may pass through.
        port: of 127.0.0.1.
    """

    def __init__(self, directory: Path, port: int) -> None:
        config = directory / "etc"
        for each in (config, directory / "spool", directory / "data"):
            each.mkdir()
        shutil.chown(directory / "data", pwd.getpwnam("postfix").pw_uid)
        (config / "main.cf").write_text(_MAIN.format(directory=directory))
        (config / "master.cf").write_text(_MASTER.format(port=port))
        self.held = directory / "spool" / "hold"
        self._command = ["postfix", "-c", str(config)]
        with open(directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self._command, "start-fg"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _START_DEADLINE
        while not answers(port):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((directory / "log").read_text())
            time.sleep(0.1)

    def stop(self) -> None:
        """It ends, with all its processes."""
        subprocess.run([*self._command, "stop"], check=False, capture_output=True)
        self.process.wait(30)


def answers(port: int) -> bool:
    """Whether an SMTP server is there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(64).startswith(b"220")
    except OSError:
        return False
