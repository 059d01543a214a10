"""Where accepted mail goes (architecture.md, 5: 250 means stored)."""

from __future__ import annotations

from .contract import Store, StoreError
from .schemes import check_url, describe, open_store

__all__ = ["Store", "StoreError", "check_url", "describe", "open_store"]
