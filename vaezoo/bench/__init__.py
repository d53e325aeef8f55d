"""How fast models are on this machine, and how near that is to what the machine can do."""
