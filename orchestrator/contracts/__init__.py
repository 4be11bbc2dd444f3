"""What rooms hand each other through the ledger: frozen models, written to JSON columns and read back here alone."""
