"""New plugin packages: what `vaezoo new` writes, and how."""
