"""Schedules: what starts orchestrations by the clock.  `ncrontab` and `planning` are pure, `service` acts."""
