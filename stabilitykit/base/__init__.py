"""What everything else stands on: errors, results, files, text. Standard library and numpy only."""
