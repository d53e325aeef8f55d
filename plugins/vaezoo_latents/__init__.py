"""Priors and posteriors beyond one Gaussian."""
