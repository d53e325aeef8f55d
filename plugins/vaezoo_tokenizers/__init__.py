"""Autoencoders for latent generation: the network `ldm`, `autoencoder_kl` and `vqgan`."""
