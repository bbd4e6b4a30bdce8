"""How fast and how large in memory an artifact is, measured beside its reference."""
