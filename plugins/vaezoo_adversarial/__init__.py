"""Autoencoders with a critic: losses in several phases."""
