"""Runs a user's function over queued mail: what ``fastsmtp consume`` does in each of its processes."""
