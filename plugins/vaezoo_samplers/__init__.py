"""Samplers: priors that are fitted to the latents of a trained model."""
