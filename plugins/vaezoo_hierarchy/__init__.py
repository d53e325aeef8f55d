"""Latents on several levels, with a top-down prior."""
