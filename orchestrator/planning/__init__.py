"""From what a client wrote to what a worker does: pure functions over plain values, no database and no queue."""
