"""What is particular to a kind of base: how its folder is laid out, and the networks that draw with it."""
