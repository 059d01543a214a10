"""The pools of all next hops that a process talks to."""

from __future__ import annotations

import asyncio
from typing import Final

from fastsmtp.client import Hop, Outgoing, Patience, Pool, Sent

_KEPT: Final = 1000  # pools, before those that nobody uses are forgotten


class Pools:
    """Sends to any hop, over connections that are kept. It belongs to one event loop.

    Args:
        name: who we say we are.
        patience: how long to wait for hops.
    """

    def __init__(self, name: str, patience: Patience) -> None:
        self._name = name
        self._patience = patience
        self._pools: dict[Hop, Pool] = {}

    async def send(self, hop: Hop, outgoing: Outgoing) -> Sent:
        """One transaction; see `Pool.send`."""
        pool = self._pools.get(hop)
        if pool is None:
            self._forget()
            pool = self._pools[hop] = Pool(hop, self._patience)
        return await pool.send(outgoing, self._name)

    async def close(self) -> None:
        """Says goodbye to all hops."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def _forget(self) -> None:
        if len(self._pools) >= _KEPT:
            self._pools = {hop: pool for hop, pool in self._pools.items() if not pool.is_unused}
