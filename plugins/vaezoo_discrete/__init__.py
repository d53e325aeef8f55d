"""Codes for latents: codebooks, scalar quantisation, relaxed categories."""
