"""Building blocks and the built-in networks of encoder and decoder."""
