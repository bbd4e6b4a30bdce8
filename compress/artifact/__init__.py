"""What an artifact is on disk: its manifest, how it appears by one rename, and how it is verified."""
