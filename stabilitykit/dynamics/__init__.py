"""The dynamical system: a model's states and blocks, its readouts, and the trajectories of a dataset."""
