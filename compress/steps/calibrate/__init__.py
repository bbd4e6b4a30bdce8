"""Calibration methods: one file each. They change no weight."""
