"""What people ask of the running system: progress, overview, doctor."""
