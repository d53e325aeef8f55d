"""The metrics that vaezoo brings; vaezoo.builtin_metrics says what each one is."""
