"""The durable queue: batches, claims, legal moves, wake-ups, sweeper, workers, outbox."""
