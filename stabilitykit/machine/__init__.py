"""The machine a run happens on: its devices, their determinism, the processes of a run."""
