"""Losses: from the distributions of a model to the number that training minimises."""
