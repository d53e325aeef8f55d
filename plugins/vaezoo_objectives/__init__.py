"""Objectives on the networks of vanilla: what is added to, or put in place of, the KL."""
