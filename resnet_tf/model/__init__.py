"""Residual networks as plain Keras Functional models."""
