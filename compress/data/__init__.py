"""Where images and texts come from, how they become inputs, and the towers of an artifact opened from their bytes."""
