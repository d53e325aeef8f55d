"""Pictures from a run: samples, reconstructions, traversals and interpolations."""
