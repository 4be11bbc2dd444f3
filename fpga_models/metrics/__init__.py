"""What is measured on generated portraits, beside floors and ceilings. Pure functions first, one command on top."""
