"""Prefect's side: its API, deployments, schedules, runs that died."""
