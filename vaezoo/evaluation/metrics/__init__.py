"""The metrics that vaezoo brings; vaezoo.evaluation.builtin says what each one is."""
