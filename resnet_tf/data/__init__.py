"""Data: sources, augmentation and the input pipeline."""
