"""For people who work in Python: one call to measure, and a run that shows itself in a notebook."""
