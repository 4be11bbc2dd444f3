"""The durable steps of an item, a module each; `orchestrator/pipelines.py` says in which order they follow."""
