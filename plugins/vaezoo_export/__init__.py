"""Export: a trained model as files for other programs."""
