"""Likelihoods of images, of counts and of real values."""
