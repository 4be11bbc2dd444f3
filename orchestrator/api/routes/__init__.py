"""Routes by noun; each is a few lines over a service function."""
