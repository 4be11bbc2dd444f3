"""How the ledger reaches its database: sessions, declarative base, schema, legal states."""
