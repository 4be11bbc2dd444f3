"""Real servers for tests, started natively on loopback, each with its own folder and port; no containers.

`python -m tests.services up` runs them by hand; tests reach them through the fixtures of tests/conftest.py.
"""
