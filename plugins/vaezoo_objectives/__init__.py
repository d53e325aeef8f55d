"""Losses for vanilla's networks: with terms beside the KL, or in its place."""
