"""What pages, lists and figures read from the ledger."""
