"""Autoencoders of diffusers as runs, and runs as folders that diffusers loads."""
