"""Runs on one page that needs nothing but a browser."""
