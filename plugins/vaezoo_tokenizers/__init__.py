"""Autoencoders for latent generation: the network `ldm` and the model `autoencoder_kl`."""
