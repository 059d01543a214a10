"""Takes queued mail to the next hop: routes, retries, reports."""
