"""Training: one loop for every strategy, optimizers, losses, checkpoints and callbacks."""
