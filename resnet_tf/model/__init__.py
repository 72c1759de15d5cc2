"""Residual networks as Functional Keras models."""
