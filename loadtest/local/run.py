"""``make loadtest``: a server and Locust on this machine for a minute, and pages that show what happened.

Exit codes: 0; 1 if a threshold was missed, or if Locust and the server count messages differently; 2 for wrong
arguments.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .agreement import Agreement
from .plots import write_page
from .server import LocalServer, local_server

ROOT = Path(__file__).parents[2]
_STOP_TIMEOUT = 30  # seconds for users to end their message: cut off ones would be counted by the server alone


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options, locust = _options(arguments)
    pages: Path = options.pages
    figures = ROOT / "build" / "loadtest"
    figures.mkdir(parents=True, exist_ok=True)
    pages.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-") as directory,
        local_server(Path(directory), [options.app, *options.serve.split()]) as server,
    ):
        code = _locust(options, locust, server, figures)
        server_code = server.stop()
        agreement = Agreement.of(figures / "figures_stats.csv", server.samples)
        write_page(pages / "plots.html", figures / "figures_stats_history.csv", server.samples)
    print(f"{agreement}\nreport: {pages / 'report.html'}\nplots: {pages / 'plots.html'}", flush=True)
    if code == 0 and (server_code != 0 or not agreement.holds):
        print(f"server's exit code {server_code}; {agreement}", file=sys.stderr)
        return 1
    return code


def _options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, epilog="What is left goes to Locust.", allow_abbrev=False)
    add = parser.add_argument
    add("--app", default="loadtest.bench_app:ThreadHooks", help="the application that is served")
    add("--serve", default="--workers 1 --store discard:", help="flags of fastsmtp serve")
    add("--pages", type=Path, default=ROOT / "loadtest", help="folder for report.html and plots.html")
    add("--user", default="Smtplib", help="class of loadtest/locustfile.py")
    add("--users", type=int, default=20)
    add("--seconds", type=int, default=60)
    add("--shape", default="steps")
    add("--rate", type=float, default=150.0, help="messages a second with all users; 0: closed loop")
    add("--max-p95-ms", type=float, default=500.0)
    add("--max-p99-ms", type=float, default=2000.0)
    add("--max-generator-cpu", type=float, default=95.0)
    return parser.parse_known_args(arguments)


def _locust(options: argparse.Namespace, more: Sequence[str], server: LocalServer, figures: Path) -> int:
    command = [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--headless"),
        *("--only-summary", "--host", f"smtp://127.0.0.1:{server.port}", "--users", str(options.users)),
        *("--run-time", str(options.seconds), "--stop-timeout", str(_STOP_TIMEOUT), "--shape", options.shape),
        *("--rate", str(options.rate), "--max-p95-ms", str(options.max_p95_ms)),
        *("--max-p99-ms", str(options.max_p99_ms), "--max-generator-cpu", str(options.max_generator_cpu)),
        *("--html", str(options.pages / "report.html"), "--csv", str(figures / "figures"), "--csv-full-history"),
        *more,
        options.user,
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
