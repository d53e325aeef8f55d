"""Autoencoders for latent generation: the networks `ldm` and `dc_ae`, and models with them."""
