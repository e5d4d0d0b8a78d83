"""What is done to finished runs: verify, compare, resample."""
