"""The mini preset: how the networks shipped in this repository are made. Only this room knows the synthetic world."""
