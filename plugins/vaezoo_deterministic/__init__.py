"""Deterministic autoencoders, with a sampler fitted to their latents after training."""
