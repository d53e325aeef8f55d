"""Losses that are importance-weighted bounds on the log-likelihood."""
