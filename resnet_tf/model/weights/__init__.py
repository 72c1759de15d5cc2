"""Weights: published files, formats, and names in other libraries."""
