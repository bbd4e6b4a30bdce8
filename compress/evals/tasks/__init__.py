"""Kinds of tasks: a file each, found by name."""
