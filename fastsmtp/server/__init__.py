"""Sockets, threads and processes: everything that drives the protocol."""
