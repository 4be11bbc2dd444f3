"""Photo archives: an open batch fed from its source, what comes back, and the sheet of it."""
