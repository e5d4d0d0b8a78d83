"""From choices to cells: build, extract once, measure, recheck."""
