"""Rendered scenes: seeded generators of images with exact ground truth, one file per kind of scene."""
