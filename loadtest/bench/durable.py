"""What it costs to keep a message before the 250: fastsmtp's stores against Postfix's smtpd, which writes its queue.

Postfix runs with a configuration and a queue of its own in a temporary directory: its master, smtpd, cleanup and
trivial-rewrite, and no queue manager, so that nothing is delivered and only the way into the queue is measured. It logs
to syslog, whose work is not counted. It needs root, as Postfix does.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from fastsmtp.store import open_store
from loadtest.bench.peers import Command, Peer, fastsmtp
from loadtest.bench.programs import found
from loadtest.bench.throughput import Scenario

SCENARIO: Final = Scenario("kept connections, 5 KB, on disk before the 250", 3000, "--sessions 20 --per-session 100000")
_DAEMONS: Final = "/usr/lib/postfix/sbin"
_MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {directory}/spool
data_directory = {directory}/data
daemon_directory = {daemons}
command_directory = /usr/sbin
meta_directory = /etc/postfix
multi_instance_name = postfix-bench
multi_instance_enable = yes
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example
mydestination =
relay_domains = example.org
relay_recipient_maps =
local_recipient_maps =
alias_maps =
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_limit = 2000
in_flow_delay = 0
message_size_limit = 67108864
default_process_limit = 100
"""
_MASTER: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
"""


def _postfix(port: int, directory: Path) -> Command:
    for path in (directory, *directory.parents):
        if path.stat().st_uid == os.geteuid() and path.name.startswith("tmp"):
            path.chmod(0o755)  # its daemons run as a user of their own
    config = directory / "config"
    for each in (config, directory / "spool", directory / "data"):
        each.mkdir()
    (config / "main.cf").write_text(_MAIN.format(directory=directory, daemons=_DAEMONS))
    (config / "master.cf").write_text(_MASTER.format(port=port))
    subprocess.run(["chown", "postfix", str(directory / "data")], check=True)
    subprocess.run(["postfix", "-c", str(config), "check"], check=True, capture_output=True)
    return [f"{_DAEMONS}/master", "-c", str(config), "-d"], {}


def _is_store(scheme: str) -> bool:
    try:
        open_store(f"{scheme}mail", 0)  # opens nothing before it is entered
    except ValueError:
        return False
    return True


def peers(python: str) -> list[Peer]:
    """Those that keep mail, Postfix first: the others are compared with it."""
    stores = [scheme for scheme in ("maildir:", "queue:") if _is_store(scheme)]
    root = "/" if os.geteuid() == 0 else None
    return [
        Peer("Postfix smtpd", _postfix, [root, found("postfix"), f"{_DAEMONS}/smtpd"], "writes its queue"),
        *(
            Peer(
                f"fastsmtp {store}",
                fastsmtp(python, "loadtest.bench_app:AsyncHooks", f"--store={store}{{directory}}/mail"),
                [],
                "synced before the 250",
            )
            for store in stores
        ),
    ]
