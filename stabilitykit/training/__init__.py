"""Training of models: recipes, checkpoints, metrics."""
