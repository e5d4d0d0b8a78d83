"""What plugins offer and how it is found. Plugins register names of things; nothing here imports torch."""
