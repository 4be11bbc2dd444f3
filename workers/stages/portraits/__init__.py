"""Stages of enrolled people and portraits."""
