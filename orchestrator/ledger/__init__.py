"""The truth: rows, sessions, legal transitions, claims and leases, outbox, every query.

Nothing outside this package writes SQL, and nothing inside it talks to a broker, a byte store or Prefect.
"""
