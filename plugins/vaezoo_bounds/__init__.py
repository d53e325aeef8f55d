"""Tighter bounds on the log-likelihood, by importance weighting."""
