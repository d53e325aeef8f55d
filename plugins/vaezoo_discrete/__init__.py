"""Discrete latents: learned codebooks, finite scalar quantization, relaxed categories."""
