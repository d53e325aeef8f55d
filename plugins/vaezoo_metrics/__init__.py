"""Metrics of the likelihood, the latents and the reconstructions."""
