"""Models that are conditioned on the class label."""
