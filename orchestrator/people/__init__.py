"""People: references, consent, erasure with a receipt, what was kept long enough."""
