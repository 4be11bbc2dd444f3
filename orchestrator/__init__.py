"""Decides what runs and records what happened; never imports torch."""
