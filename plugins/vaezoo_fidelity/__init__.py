"""Metrics of generated images: FID, KID, precision and recall."""
