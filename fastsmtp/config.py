"""The settings: what each is called, means and allows. Where their values come from, `sources` knows.

The fields of `Config` are the only list of settings: flags, environment variables, TOML keys, ``--help`` and the
settings page are made from them. A value that has passed `build` has its field's type and is within its
bounds, also where a listener has one of its own, and no listener's values contradict each other; nobody checks again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from .listen import Listen, address, listeners
from .settings import (
    ConfigError,
    Setting,
    count,
    duration,
    file,
    files,
    flag,
    interval,
    matching,
    network_list,
    octets,
    processes,
    seconds,
    setting,
    share,
    token,
    whole,
    word,
    words,
)

__all__ = ["SETTINGS", "Config", "ConfigError", "Given", "Listen", "Setting", "build", "named"]

_app = matching(r"[\w.]+:[\w.]+", "module:attribute, such as inbox:Inbox")
# It goes into the banner: a domain or an address literal (RFC 5321 4.1.2).
_hostname = matching(r"[\w.-]{1,255}|\[[\w.:]{1,253}\]", "a host name or an address literal in brackets")
# What a store is written like; fastsmtp.store knows what is behind it.
_STORES = {
    "maildir:PATH": r"maildir:[^\0]+",
    "queue:PATH": r"queue:[^\0]+",
    "postgresql://USER@HOST/DATABASE": r"postgres(?:ql)?://[^\0]+",
    "forward:smtp://HOST": r"forward:[^\0\s]+",
    "webhook:https://HOST": r"webhook:[^\0\s]+",
    "discard:": "discard:",
}
_STORE_FORMS = ", ".join(_STORES)
_store = matching("|".join(_STORES.values()), f"one of {_STORE_FORMS}")
_directory = matching(r"[^\0]+", "a directory")
_mode = matching("0?[0-7]{3}", "a mode in octal, such as 0600")
_log_file = matching(r"[^\0]+", 'a file, or "-"')
_account = matching(r"[\w.-]{1,64}", "a name or a number")
_mechanisms = words("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "XOAUTH2", "OAUTHBEARER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting. Make one with `Config.of` or `sources.load`; the constructor itself checks nothing."""

    app: str | None = setting("Server", None, _app, "Handler class, instance or factory.", metavar="MODULE:ATTRIBUTE")
    listen: tuple[str, ...] = setting(
        "Server",
        ("127.0.0.1:1025",),
        listeners,
        'HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N; behind it, settings of this listener alone: "127.0.0.1:24 lmtp".',
        metavar="ADDRESS",
    )
    workers: int | None = setting(
        "Server", None, processes, "Processes; auto: by CPU affinity and cgroup quota.", minimum=1, unset="auto"
    )
    max_workers: int | None = setting(
        "Server", None, whole, "Most processes that scaling may reach.", minimum=1, unset="2 x workers, at least 8"
    )
    balance: Literal["reuseport", "shared", "cpu"] = word(
        "Server", "reuseport", "Who gets a connection: any worker, whoever accepts first, or the worker on its CPU."
    )
    hostname: str | None = setting(
        "Server", None, _hostname, "Name in banner and EHLO reply.", metavar="NAME", unset="the machine's full name"
    )
    backlog: int = count("Server", 4096, "Connections that wait in the kernel for accept.", 1, "per listener")
    socket_mode: str | None = setting(
        "Server", None, _mode, "Mode of a listener's unix socket.", metavar="MODE", unset="by umask"
    )
    preload: bool = flag("Server", False, "Import the application in the master, before forking.")
    user: str | None = setting("Server", None, _account, "Who to become once addresses are bound.", metavar="NAME")
    group: str | None = setting(
        "Server", None, _account, "Its group.", metavar="NAME", unset="that of user; without user, none"
    )
    umask: str | None = setting(
        "Server", None, _mode, "Mode bits that new files lack.", metavar="MODE", unset="as inherited"
    )
    pidfile: str | None = setting("Server", None, file, "Where the master writes its pid.", metavar="FILE")
    drain_timeout: float = seconds("Server", 30, "Time that sessions have to end after a stop or reload.", 0)
    drain_idle: float = seconds("Server", 5, "Idle time after which a reload ends a session with 421 4.3.2.", 0)
    max_connections: int = count("Server", 8192, "Connections before 421 4.3.2 and close.", 1, "per worker")

    max_requests: int = count("Workers", 0, "Connections before a worker is replaced; 0: off.", 0, "per worker")
    max_requests_jitter: int = count("Workers", 0, "Up to so many more, at random.", 0, "per worker")
    max_lifetime: float = seconds("Workers", 0, "Age at which a worker is replaced; 0: off.", 0)
    max_lifetime_jitter: float = seconds("Workers", 0, "Up to so much more, at random.", 0)
    max_rss: int = octets("Workers", 0, "Memory in use at which a worker is replaced; 0: off.", 0)
    watchdog_timeout: float = seconds("Workers", 30, "Time without a turn of its loop; then a worker is killed.", 1)
    cpu_affinity: bool = flag("Workers", False, "Keep all threads of a worker on one CPU, slot by slot.")
    switch_interval: float | None = setting(
        "Workers",
        None,
        duration,
        "Time after which threads change (sys.setswitchinterval).",
        minimum=0.00001,
        unit="seconds",
        metavar="SECONDS",
        unset="0.005; less while hooks compute",
    )

    threads: int = count("Handler", 8, "Threads for hooks that block.", 1, "per worker")
    max_pending_hooks: int = count("Handler", 1000, "Hooks unfinished before MAIL gets 451 4.3.2.", 1, "per worker")
    hook_timeout: float = seconds("Handler", 60, "Time for one hook; then 451 4.3.0.")
    # RFC 5321 4.5.3.2.6: the client waits 10 minutes for the reply to the end of data.
    data_hook_timeout: float = seconds("Handler", 300, "Time for the data hook and the store; then 451 4.3.0.")

    store: str | None = setting(
        "Storage", None, _store, f"Where mail goes: {_STORE_FORMS}; without APP maildir:./mail.", metavar="STORE"
    )
    spool_dir: str | None = setting(
        "Storage", None, _directory, "Where large messages wait, unnamed.", metavar="DIR", unset="$TMPDIR or /tmp"
    )
    spool_threshold_bytes: int = octets("Storage", 2**20, "Size above which an arriving message goes to a file.", 0)

    max_message_bytes: int = octets("Message", 2**25, "Largest message (SIZE, RFC 1870); over it 552 5.3.4.", 1)
    max_header_bytes: int = octets("Message", 2**18, "Largest header section; over it 552 5.3.4.", 1)
    max_received: int = count("Message", 100, "Received fields before 554 5.4.6 (RFC 5321 6.3).", 1, "fields")
    max_text_line: int = octets("Message", 0, "Longest line of text; over it 554 5.6.0; 0: off.", 0)
    bare_newline: Literal["reject", "normalize", "keep"] = word(
        "Message", "reject", "Bare CR or LF in content: 550 5.5.2; SP and CRLF instead; or left as they are."
    )
    nul_in_data: Literal["reject", "keep"] = word("Message", "reject", "NUL in content: 554 5.6.0; or kept.")

    # RFC 5321 4.5.3.1.4: 512 octets with CRLF must work.
    max_command_octets: int = octets("Session", 2048, "Longest command with CRLF; over it 500 5.5.2.", 512)
    max_line_discard_octets: int = octets("Session", 2**17, "Octets of a line before 521 5.5.2 and close.", 512)
    # RFC 5321 4.5.3.1.8: 100 recipients must work.
    max_recipients: int = count("Session", 1000, "Recipients before 452 4.5.3.", 100, "per transaction")
    max_messages: int = count("Session", 0, "Messages before 452 4.5.3 (RFC 9422); 0: off.", 0, "per connection")
    max_errors: int = count("Session", 20, "Errors before 421 4.7.0 and close.", 1, "per session")
    error_delay_after: int = count("Session", 10, "Errors from which on a reply of 5xx waits.", 1, "per session")
    error_delay: float = seconds("Session", 1, "Time that such a reply waits; 0: off.", 0)
    max_junk_commands: int = count("Session", 100, "Commands without mail before 421 4.7.0.", 1, "between messages")

    pipelining: bool = flag("Extensions", True, "Offer PIPELINING (RFC 2920).")
    size: bool = flag("Extensions", True, "Offer SIZE with max_message_bytes (RFC 1870).")
    eightbitmime: bool = flag("Extensions", True, "Offer 8BITMIME (RFC 6152).")
    enhancedstatuscodes: bool = flag("Extensions", True, "Offer ENHANCEDSTATUSCODES (RFC 2034).")
    smtputf8: bool = flag("Extensions", True, "Offer SMTPUTF8 (RFC 6531).")
    limits: bool = flag("Extensions", True, "Offer LIMITS with the numbers in force (RFC 9422).")
    chunking: bool = flag("Extensions", True, "Offer CHUNKING: BDAT (RFC 3030).")
    binarymime: bool = flag("Extensions", False, "Offer BINARYMIME; the store must keep every octet (RFC 3030).")
    dsn: bool = flag("Extensions", False, "Offer DSN; the store must honour or pass on its parameters (RFC 3461).")
    requiretls: bool = flag("Extensions", False, "Offer REQUIRETLS inside TLS; the store must honour it (RFC 8689).")
    deliverby: bool = flag("Extensions", False, "Offer DELIVERBY (RFC 2852).")
    deliverby_min: int = interval("Extensions", 0, "Shortest time that DELIVERBY offers; 0: none is named.")
    futurerelease: int = interval("Extensions", 0, "Longest hold (RFC 4865); over it 501 5.5.4; 0: off.")
    mt_priority: bool = flag("Extensions", False, "Offer MT-PRIORITY (RFC 6710).")
    starttls: bool = flag("Extensions", True, "Offer STARTTLS where there is a certificate (RFC 3207).")
    vrfy: bool = flag("Extensions", True, "Answer VRFY with 252 2.0.0; off: 502 5.5.1.")
    lmtp: bool = flag("Extensions", False, "Speak LMTP instead of SMTP (RFC 2033); never on TCP port 25.")

    tls_certfile: tuple[str, ...] = setting(
        "TLS", (), files, "Certificate chain, PEM; of several the client's SNI chooses.", metavar="FILE"
    )
    tls_keyfile: tuple[str, ...] = setting(
        "TLS", (), files, "Private key of each certificate, PEM.", metavar="FILE", unset="in tls_certfile"
    )
    tls_min_version: Literal["1.2", "1.3"] = word("TLS", "1.2", "Oldest TLS; below it alert and close.")
    tls_client_ca: str | None = setting(
        "TLS", None, file, "Authorities that client certificates are checked against, PEM.", metavar="FILE"
    )
    tls_verify_client: Literal["off", "optional", "required"] = word(
        "TLS", "off", "Ask for a client certificate; without a good one, if required, alert and close."
    )
    tls_handshake_timeout: float = seconds("TLS", 30, "Time for a handshake; then close.")
    implicit_tls: bool = flag("TLS", False, "TLS before the banner (RFC 8314); clear text gets a close.")
    require_tls: bool = flag("TLS", False, "Mail and AUTH in clear text get 530 5.7.0.")

    users: str | None = setting("Authentication", None, file, "Users file, see fastsmtp user.", metavar="FILE")
    auth_mechanisms: tuple[str, ...] = setting(
        "Authentication",
        (),
        _mechanisms,
        "Of PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, XOAUTH2, OAUTHBEARER.",
        metavar="MECHANISM",
        unset="what handler or users file support",
    )
    require_auth: bool = flag("Authentication", False, "Mail before AUTH gets 530 5.7.0.")
    auth_requires_tls: bool = flag("Authentication", True, "AUTH in clear text gets 538 5.7.11 (RFC 4954 4).")
    # RFC 4954 4: 12288 octets suffice for every mechanism. PLAIN and LOGIN need no more than other commands.
    max_auth_octets: int = octets("Authentication", 12288, "Longest AUTH line with CRLF; over it 500 5.5.6.", 512)
    max_auth_failures: int = count(
        "Authentication", 3, "Failed logins before 421 4.7.0 and close.", 1, "per connection"
    )
    auth_failure_delay: float = seconds("Authentication", 1, "Time that a 535 waits; 0: off.", 0)
    auth_failures_per_client: int = count(
        "Authentication", 20, "Failed logins before 454 4.7.0, credentials unread.", 1, "per client"
    )
    auth_failures_window: float = seconds("Authentication", 600, "Time over which these are counted.")

    max_connections_per_client: int = count(
        "Networks", 50, "Connections before 421 4.7.0 and close; 0: off.", 0, "per client, all workers"
    )
    connection_rate_per_client: int = count(
        "Networks", 0, "New connections before 421 4.7.0 and close; 0: off.", 0, "per minute"
    )
    exempt_networks: tuple[str, ...] = network_list(
        "Networks", ("127.0.0.0/8", "::1/128"), "Clients without limits per client; those of a session hold."
    )
    proxy_protocol: bool = flag("Networks", False, "Expect a PROXY header, v1 or v2; without it close.")
    proxy_networks: tuple[str, ...] = network_list("Networks", (), "Proxies whose header is believed; others: close.")
    # The addresses of v2 alone may take 216 octets (PROXY protocol, 2.2).
    proxy_v2_max_bytes: int = octets("Networks", 4096, "Longest v2 header behind its length; over it close.", 216)
    proxy_timeout: float = seconds("Networks", 5, "Time for the PROXY header; then close.")
    proxy_trust_loopback: bool = flag("Networks", False, "Trust a loopback address in a PROXY header.")
    xclient_networks: tuple[str, ...] = network_list("Networks", (), "Clients that may XCLIENT; others: 550 5.7.0.")
    early_talker: Literal["ignore", "reject"] = word(
        "Networks", "ignore", "Octets before the banner: answered behind it; or 554 5.5.0 and close."
    )
    greet_wait: float = seconds("Networks", 0, "Pause before the banner, for early_talker.", 0)

    # RFC 5321 4.5.3.2.7: at least 5 minutes.
    command_timeout: float = seconds("Timeouts", 300, "Time for one complete command; then 421 4.4.2, close.")
    data_timeout: float = seconds(
        "Timeouts", 300, "Time for DATA or a chunk, plus octets / min_data_rate; then 421 4.4.2."
    )
    min_data_rate: int = count("Timeouts", 500, "Rate by which octets extend data_timeout.", 1, "octets per second")
    session_timeout: float = seconds(
        "Timeouts", 3600, "Time for a session; then 421 4.4.2, when running data are done."
    )
    write_timeout: float = seconds("Timeouts", 60, "Time without progress in writing to the client; then close.")
    linger_timeout: float = seconds("Timeouts", 1, "Time a close waits for the client's.", 0)
    refusal_timeout: float = seconds("Timeouts", 2, "Time to write a refusal to a new client; then close.")

    stress_at: float = setting(
        "Overload",
        0.8,
        share,
        "Part in use from which on 10 s are the limit for a command or handshake, and 5 for errors and junk commands.",
        unit="of max_connections",
    )
    max_loop_lag: float = seconds("Overload", 0.5, "Lag of a worker's loop from which on MAIL gets 451 4.3.2.")
    memory_high: float = setting(
        "Overload",
        0.75,
        share,
        "Part in use from which on MAIL gets 452 4.3.1.",
        unit="of the cgroup's or machine's memory",
    )
    min_free_bytes: int | None = setting(
        "Overload",
        None,
        whole,
        "Free space in the store below which MAIL gets 452 4.3.1; 0: off.",
        unit="octets",
        metavar="OCTETS",
        maximum=2**63 - 1,
        unset="1.5 x max_message_bytes",
    )

    admin: str | None = setting(
        "Admin", None, address, "Where metrics, health and control are: HOST:PORT or unix:PATH.", metavar="ADDRESS"
    )
    admin_token: str | None = setting(
        "Admin",
        None,
        token,
        "Needed to control over TCP; best in the environment.",
        metavar="TOKEN",
        secret=True,
    )
    admin_mode: str = setting("Admin", "0600", _mode, "Mode of the unix socket of admin.", metavar="MODE")

    log_format: Literal["text", "json"] = word("Logging", "text", "Form of a log line.")
    log_level: Literal["debug", "info", "warning", "error"] = word("Logging", "info", "Least severity logged.")
    log_file: str = setting("Logging", "-", _log_file, "Where the log goes.", metavar="FILE", unit="(standard error)")
    access_log_file: str = setting(
        "Logging", "-", _log_file, "Where the access log goes.", metavar="FILE", unit="(standard output)"
    )

    @classmethod
    def of(cls, **settings: object) -> Config:
        """Makes a Config from Python, in any spelling that the other sources may use.

        Raises:
            ConfigError: A name is unknown, a value not allowed, or the values of a listener contradict each other.
        """
        return build({name: Given(value, name, "Python") for name, value in settings.items()})

    @property
    def effective_store(self) -> str | None:
        """The store to use: mail accepted without an application would be lost, so it goes to a maildir."""
        return self.store or (None if self.app else "maildir:./mail")

    def for_listener(self, listen: Listen) -> Config:
        """Returns what holds at one listener: its own values, else the server's.

        Raises:
            ConfigError: An option is unknown, not for a listener or not allowed, or the values contradict each other.
        """
        where = f"listener {listen.address}"
        given: dict[str, list[str]] = {}
        for name, value in listen.options:
            given.setdefault(name, []).append(value)
        own: dict[str, Any] = {name: _own(name, texts, f"{where}: {name}") for name, texts in given.items()}
        config = replace(self, **own)
        for contradicts, text in _CONTRADICTIONS:
            if contradicts(config, listen):
                raise ConfigError(f"{where}: {text}")
        return config


def _own(name: str, texts: list[str], where: str) -> object:
    about = named(name, where)
    if not about.per_listener:
        raise ConfigError(f"{where}: is set for the whole server only")
    if about.is_boolean:
        texts = [text or "true" for text in texts]
    if "" in texts:
        raise ConfigError(f"{where}: needs a value, {name}={about.placeholder}")
    if len(texts) > 1 and not about.is_list:
        raise ConfigError(f"{where}: is given twice")
    return about.read(texts if about.is_list else texts[0], where)


_CONTRADICTIONS: tuple[tuple[Callable[[Config, Listen], bool], str], ...] = (
    # Without a list, everybody could claim any address.
    (lambda own, at: own.proxy_protocol and not own.proxy_networks, "proxy_protocol needs proxy_networks"),
    (lambda own, at: own.implicit_tls and not own.tls_certfile, "implicit_tls needs tls_certfile"),
    (lambda own, at: own.require_tls and not own.tls_certfile, "require_tls needs tls_certfile"),
    (
        lambda own, at: len(own.tls_keyfile) not in (0, len(own.tls_certfile)),
        "tls_keyfile needs a file for each tls_certfile, or none",
    ),
    (
        lambda own, at: own.tls_verify_client != "off" and own.tls_client_ca is None,
        "tls_verify_client needs tls_client_ca",
    ),
    # RFC 3030 3: BINARYMIME can only be used with CHUNKING.
    (lambda own, at: own.binarymime and not own.chunking, "binarymime needs chunking"),
    # RFC 2033 5: the LMTP protocol must not be used on TCP port 25.
    (lambda own, at: own.lmtp and at.path is None and at.port == 25, "lmtp must not be on TCP port 25 (RFC 2033 5)"),
)


def _describe(one: Field[Any], hint: object) -> Setting:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    about: Setting = one.metadata["setting"]
    return replace(about, name=one.name, choices=choices)


_HINTS = get_type_hints(Config)
SETTINGS: Mapping[str, Setting] = {one.name: _describe(one, _HINTS[one.name]) for one in fields(Config)}


class Given(NamedTuple):
    """A value in some spelling, and where it is from."""

    value: object
    where: str  # what the user wrote it under
    source: str


def build(given: Mapping[str, Given]) -> Config:
    """Makes a Config of what was given; the rest has its default.

    Raises:
        ConfigError: A name is unknown, a value not allowed, or the values of a listener contradict each other.
    """
    values: dict[str, Any] = {name: named(name, one.where).read(one.value, one.where) for name, one in given.items()}
    config = Config(**values)
    for text in config.listen:
        config.for_listener(Listen.parse(text))  # now, not when a client comes
    return config


def named(name: str, where: str) -> Setting:
    """Returns what is known of a setting.

    Raises:
        ConfigError: There is none of this name; a similar one is suggested.
    """
    if name in SETTINGS:
        return SETTINGS[name]
    near = difflib.get_close_matches(name, SETTINGS, 1)
    raise ConfigError(f"{where}: no such setting" + (f", did you mean {near[0]}?" if near else ""))
