"""The story: recipe in, measured and settled artifact out."""
