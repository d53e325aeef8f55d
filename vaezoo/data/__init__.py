"""Data sets: where images come from, decoded once, and how they become batches."""
