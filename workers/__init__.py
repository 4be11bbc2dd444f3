"""Runs stages on one device."""
