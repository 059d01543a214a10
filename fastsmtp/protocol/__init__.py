"""The SMTP protocol without I/O: octets in; questions and replies out. Nothing here knows sockets, time or threads."""
