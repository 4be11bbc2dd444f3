"""Data sets: builds, versions by the hash of their content."""
