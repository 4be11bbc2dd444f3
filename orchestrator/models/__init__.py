"""Versions of networks: registered, pulled, with where they come from."""
