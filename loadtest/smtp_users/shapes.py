"""The profile that --shape names, for Locust."""

from __future__ import annotations

from locust import LoadTestShape

from .profiles import PROFILES


class ChosenShape(LoadTestShape):
    """The shape that --shape names, stretched over --run-time and up to --users."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """What Locust asks once a second; None ends the run."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        elapsed = float(self.get_run_time())  # type: ignore[no-untyped-call]  # Locust's own
        at = elapsed / options.run_time if options.run_time else 0.0
        if at >= 1:
            return None
        users = max(1, round(PROFILES[options.shape](at) * (options.num_users or 1)))
        return users, float(users)  # at once: it is the shape that says how fast, not --spawn-rate
