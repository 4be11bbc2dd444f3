"""Adapters beside the denoiser: identity, local tokens, control hint, and the layers that they are made of."""
