"""The SMTP protocol without I/O: octets in; events and reply octets out. Nothing here knows sockets, time or threads."""
