"""A logger for TensorBoard."""
