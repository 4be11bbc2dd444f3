"""Training of the autoencoder: both halves on crops, the latents and pictures it makes, then the decoder alone."""
