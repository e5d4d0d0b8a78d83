"""The nearest other image, and the true orbit nearest to a pseudo-orbit."""
