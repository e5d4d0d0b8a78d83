"""Bounding-box trees, one per group of images."""
