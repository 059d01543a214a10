"""A real Dovecot that takes mail over LMTP, in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server.running import starting
from tests.server.waiting import until

_USER = "dovecot"  # Debian's package makes it
_CONFIG = """
protocols = lmtp
base_dir = {directory}/run
log_path = {directory}/dovecot.log
ssl = no
default_internal_user = {user}
default_login_user = {user}
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
service lmtp {{
  unix_listener {directory}/lmtp.sock {{
    mode = 0666
  }}
}}
"""
_BOXES_2_3 = """
mail_location = maildir:{directory}/boxes/%n
auth_username_format = %Ln
userdb {{
  driver = passwd-file
  args = username_format=%n {directory}/users
}}
passdb {{
  driver = passwd-file
  args = username_format=%n {directory}/users
}}
"""
# Dovecot 2.4 has other names for it, and wants to be told in front of everything which names these are.
_VERSION_2_4 = """
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
"""
_BOXES_2_4 = """
mail_driver = maildir
mail_path = {directory}/boxes/%{{user | username}}
auth_username_format = %{{user | username | lower}}
userdb passwd-file {{
  passwd_file_path = {directory}/users
}}
passdb passwd-file {{
  passwd_file_path = {directory}/users
}}
"""


def _config_for(program: str) -> str:
    """The template that this Dovecot understands."""
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    old = version.startswith("2.3")
    return _CONFIG + _BOXES_2_3 if old else _VERSION_2_4 + _CONFIG + _BOXES_2_4


class Dovecot:
    """A server that runs.

    Attributes:
        url: where it takes mail.
    """

    def __init__(self, directory: Path) -> None:
        self._boxes = directory / "boxes"
        self.url = f"lmtp://unix:{directory}/lmtp.sock"

    def mail_of(self, user: str) -> list[bytes]:
        """What is in a user's box, in no order."""
        files = (self._boxes / user).glob("*/*") if (self._boxes / user).is_dir() else ()
        return [file.read_bytes() for file in files if file.parent.name in ("new", "cur")]


@contextmanager
def dovecot(program: str, *users: str) -> Iterator[Dovecot]:
    """A Dovecot with boxes for users.

    Its processes are not root's and must reach its directory, which pytest's own directories do not allow; and the
    path of its socket must be short.
    """
    directory = Path(tempfile.mkdtemp(prefix="dovecot-"))
    try:
        directory.chmod(0o755)
        account = pwd.getpwnam(_USER) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        (directory / "boxes").mkdir()
        os.chown(directory / "boxes", account.pw_uid, account.pw_gid)
        (directory / "users").write_text("".join(f"{user}::::::\n" for user in users))
        config = directory / "dovecot.conf"
        group = os.stat(directory / "boxes").st_gid
        config.write_text(_config_for(program).format(directory=directory, user=account.pw_name, group=group))
        with starting(directory, [program, "-F", "-c", str(config)], name="process"):
            log = directory / "dovecot.log"
            until(lambda: log.exists() and "starting up" in log.read_text(), "Dovecot is there")
            until((directory / "lmtp.sock").exists, "Dovecot listens")
            yield Dovecot(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
