"""The closest pairs of images of different groups."""
