"""Portraits asked for: manifest to committed batch."""
