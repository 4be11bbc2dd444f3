"""Data sets: builds from pictures, versions by the hash of their content, what can be said of them."""
