"""What keeps the system moving: broker, dispatch, sweeping, repair, webhooks, Prefect's side."""
