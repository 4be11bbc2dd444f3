"""Scans of archives in the ledger: photos that were looked at, their faces, and the people these belong to."""
