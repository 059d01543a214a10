"""What the Grafana dashboard asks Prometheus for."""

from __future__ import annotations

import json
from pathlib import Path

DASHBOARD = Path(__file__).parents[2] / "docker" / "grafana" / "dashboards" / "fastsmtp.json"


def queries_of_the_dashboard() -> list[str]:
    """The expression of every target of every panel."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]
