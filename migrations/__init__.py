"""Alembic's folder: the only way to make or change a schema."""
