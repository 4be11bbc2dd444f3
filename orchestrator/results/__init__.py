"""What comes back: results, downloads, sheets, provenance."""
