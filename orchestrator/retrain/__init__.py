"""Training runs, what is measured of their versions, and the gate that lets one through."""
