"""What a session may take of the server: the settings of the protocol, a small part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The numbers that a session enforces. All sizes are octets, line ends included."""

    max_command_octets: int = 2048  # RFC 5321 4.5.3.1.4 asks for 512
    max_auth_octets: int = 12288  # AUTH and its responses, RFC 4954 4
    max_line_discard_octets: int = 131072  # of an overlong line, before the connection is given up
    max_message_bytes: int = 33554432
    max_header_bytes: int = 262144
    max_received: int = 100  # Received fields; RFC 5321 6.3 suggests at least 100
    max_text_line: int = 0  # 0: lines of any length are carried
    max_recipients: int = 1000  # per transaction; RFC 5321 4.5.3.1.8 asks for 100
    max_messages: int = 0  # per session; 0: any number
    max_errors: int = 20  # 5xx replies in a session since the last accepted message
    error_delay_after: int = 10  # errors in a session, from which on each reply of 5xx waits
    error_delay: float = 1.0  # seconds
    max_auth_failures: int = 3  # per connection
    auth_failure_delay: float = 1.0  # seconds that a 535 waits
    max_junk_commands: int = 100  # commands since the last accepted message that bring no mail nearer
    bare_newline: Literal["reject", "normalize", "keep"] = "reject"
    nul_in_data: Literal["reject", "keep"] = "reject"

    def under_stress(self, few: int) -> Limits:
        """With less patience for errors and junk: `few` of each at most."""
        return replace(self, max_errors=min(self.max_errors, few), max_junk_commands=min(self.max_junk_commands, few))
