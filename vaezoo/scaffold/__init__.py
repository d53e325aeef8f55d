"""What `vaezoo new` writes, and how."""
