"""Results as data: the latents and the scores of examples in files, and examples from latents."""
