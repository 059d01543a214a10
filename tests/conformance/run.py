"""Play the conformance cases against the server that `serve` starts: whole, in segments of one octet, and stored.

python tests/conformance/run.py RUN_CASES

RUN_CASES is the program that plays the cases; it is kept outside this repository. Without it nothing is run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conformance.server_process import ServerProcess

KINDS = ("plain", "proxy", "xclient", "lmtp")
SERVE = str(Path(__file__).with_name("serve"))


def main() -> int:
    run_cases = Path(sys.argv[1])
    if not run_cases.is_file():
        print(f"{run_cases} is not there: no conformance cases were run")
        return 0
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fastsmtp-") as directory:
        maildir = str(Path(directory, "mail"))
        passes: list[tuple[str, list[str], list[str]]] = [
            ("whole", [], []),
            ("one octet per segment", [], ["--segment", "1"]),
            ("whole, with a look at what was stored", ["--maildir", maildir], ["--maildir", maildir]),
        ]
        for title, store, options in passes:
            listen = [word for kind in KINDS for word in (f"--{kind}", "0")]
            with ServerProcess([sys.executable, SERVE, *listen, *store], Path(directory)) as server:
                print(f"{title}:", flush=True)
                plain, *others = map(str, server.ports)
                command = [sys.executable, str(run_cases), server.host, plain, *options]
                command += [word for kind, port in zip(KINDS[1:], others, strict=True) for word in (f"--{kind}", port)]
                failed |= subprocess.run(command, check=False).returncode
            if server.exit_code:
                failed = 1
                print(f"the server ended with exit code {server.exit_code}:\n{server.log}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
