"""Optimizers by name, and the update rules that Keras does not have."""
