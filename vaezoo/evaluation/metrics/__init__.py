"""The classes of the built-in metrics, which vaezoo.evaluation.builtin registers."""
