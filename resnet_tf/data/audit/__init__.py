"""Audit of a data set: duplicates, leaks, label errors, outliers and image quality, as functions of arrays."""
