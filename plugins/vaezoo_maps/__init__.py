"""Maps: the latents of a run's test examples in a plane."""
