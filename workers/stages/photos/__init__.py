"""Stages of photos."""
