"""What the ledger knows of being private: what is sealed, where people can be, and how they are taken away."""
