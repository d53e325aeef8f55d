"""Bottlenecks: full Gaussian, Laplace and Student's t latents, planar and radial flows."""
