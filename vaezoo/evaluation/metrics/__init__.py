"""The metrics that vaezoo brings; vaezoo.evaluation.builtin_metrics says what each one is."""
