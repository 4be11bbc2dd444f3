"""Prefect's side: flows that watch batches, and the deployments and schedules they run from."""
