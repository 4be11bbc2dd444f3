"""Stages of data sets."""
