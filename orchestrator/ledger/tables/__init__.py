"""The ledger's tables, one module for each group of them."""
