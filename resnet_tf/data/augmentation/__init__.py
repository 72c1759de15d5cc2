"""Augmentation: transforms of an example, and mixing of a batch."""
