"""How many workers, by fake trees of cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastsmtp.server import capacity
from fastsmtp.server.capacity import cpu_quota, default_workers
from tests.server.processes import children_of
from tests.server.running import running


def _tree(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


V1 = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        # version 2
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/app\n", {"app/cpu.max": "50000 100000\n"}, 0.5),
        (
            "0::/a/b/c\n",
            {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "200000 100000\n", "a/b/c/cpu.max": "max 100000\n"},
            2.0,
        ),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1.0),
        ("0::/a\n", {"b/cpu.max": "100000 100000\n"}, None),
        # in a container the root is all that one sees, whatever the membership says
        ("0::/../../outside\n", {"cpu.max": "250000 100000\n"}, 2.5),
        # version 1
        ("4:cpu,cpuacct:/\n", V1, None),
        ("4:cpu,cpuacct:/\n", {**V1, "cpu/cpu.cfs_quota_us": "350000\n"}, 3.5),
        (
            "5:memory:/x\n4:cpu,cpuacct:/docker/1\n",
            {
                **V1,
                "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "120000\n",
                "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            1.2,
        ),
        ("5:memory:/x\n", {"memory/x/cpu.cfs_quota_us": "1\n", "memory/x/cpu.cfs_period_us": "100000\n"}, None),
        # nothing there, or nothing that we understand
        ("", {}, None),
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
    ],
)
def test_cpu_quota(tmp_path: Path, membership: str, files: dict[str, str], quota: float | None) -> None:
    root, ours = tmp_path / "cgroup", tmp_path / "membership"
    root.mkdir()
    _tree(root, files)
    ours.write_text(membership)
    assert cpu_quota(root, ours) == quota


def test_no_membership_file(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("cpus", "quota", "workers", "reason"),
    [
        (1, None, 1, "1 CPU available"),
        (8, None, 8, "8 CPUs available"),
        (8, 2.5, 3, "8 CPUs available, CPU quota 2.5"),
        (8, 0.1, 1, "8 CPUs available, CPU quota 0.1"),
        (2, 6.0, 2, "2 CPUs available, CPU quota 6"),
    ],
)
def test_default_workers(
    monkeypatch: pytest.MonkeyPatch, cpus: int, quota: float | None, workers: int, reason: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)))
    monkeypatch.setattr(capacity, "cpu_quota", lambda: quota)
    assert default_workers() == (workers, reason)


def test_workers_keep_to_a_cpu_each(tmp_path: Path) -> None:
    """With their threads; the master goes where it likes."""
    ours = os.sched_getaffinity(0)
    with running(tmp_path, "loadtest.bench_app:ThreadHooks", "--cpu-affinity", workers=2) as server:
        with server.greeted() as client:
            client.deliver()
        workers = [os.sched_getaffinity(pid) for pid in children_of(server.pid)]
        threads = [
            os.sched_getaffinity(int(thread.name))
            for pid in children_of(server.pid)
            for thread in Path(f"/proc/{pid}/task").iterdir()
        ]
        master = os.sched_getaffinity(server.pid)
    assert sorted(map(sorted, workers)) == sorted([each] for each in (sorted(ours) * 2)[:2])
    assert len(threads) > len(workers)  # one has a thread for hooks
    assert {len(each) for each in threads} == {1}
    assert master == ours
