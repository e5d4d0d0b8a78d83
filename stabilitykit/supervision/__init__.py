"""The only room that starts processes or touches signals."""
