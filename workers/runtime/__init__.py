"""The process that claims stages, runs them and records what came out."""
