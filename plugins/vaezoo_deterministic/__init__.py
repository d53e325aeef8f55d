"""Autoencoders whose posterior is a point, with a sampler fitted afterwards."""
