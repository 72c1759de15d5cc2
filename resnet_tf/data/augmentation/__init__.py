"""Augmentation: transforms of single examples, and mixing of examples within a batch."""
