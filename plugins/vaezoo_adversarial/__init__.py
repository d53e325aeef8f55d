"""Autoencoders with a discriminator: losses in several phases."""
