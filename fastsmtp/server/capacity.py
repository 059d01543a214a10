"""How much of a machine, or of the part of it that we were given, we may use: workers, open files, memory."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def raise_descriptor_limit() -> None:
    """A connection takes a descriptor, and the usual soft limit is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def default_workers() -> tuple[int, str]:
    """One worker for each CPU that this process may use, but no more than its CPU quota pays for.

    Returns:
        The number, and the reason for the log.
    """
    cpus = len(usable_cpus())
    reason = f"{cpus} CPU{'s' if cpus > 1 else ''} available"
    quota = cpu_quota()
    if quota is None:
        return cpus, reason
    return max(1, min(cpus, math.ceil(quota))), f"{reason}, CPU quota {quota:g}"


def usable_cpus() -> list[int]:
    """The CPUs that this process may run on, in the order of the slots whose turn they are."""
    return sorted(os.sched_getaffinity(0))


def keep_to_one_cpu(slot: int) -> None:
    """All threads of this process, also those to come, run on the CPU that is the slot's turn.

    Only one of them has the interpreter at a time. Where they are spread over CPUs, each hop between the event loop and
    a pool thread wakes another CPU: a third of the price of a message with hooks in threads.
    """
    cpus = usable_cpus()
    os.sched_setaffinity(0, {cpus[slot % len(cpus)]})


def cpu_quota(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """CPUs that the cgroups of this process grant it; None if there is no limit.

    Args:
        root: where the cgroup file system is mounted.
        membership: the file that names our cgroups.
    """
    quotas = [quota for group in own_groups("cpu", root, membership) if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def own_groups(controller: str, root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Our cgroup and the groups above it: each one's limit counts. In a container the root is all we see.

    Args:
        controller: of version 1, "cpu" or "memory".
        root: where the cgroup file system is mounted.
        membership: the file that names our cgroups.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    groups = [root, root / controller]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root if controllers == "" else root / controllers
        if controllers == "" or controller in controllers.split(","):
            below = base / path.lstrip("/")
            groups += [below, *(parent for parent in below.parents if parent.is_relative_to(base))]
    return groups


def _quota(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()  # version 2: "max 100000" or "150000 100000"
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()  # version 1: -1 means no limit
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    if quota == "max" or int(quota) < 0:
        return None
    return int(quota) / int(period)
