"""Schedules: what starts orchestrations by the clock, and what each tick decides; `engine/schedule_service` acts."""
