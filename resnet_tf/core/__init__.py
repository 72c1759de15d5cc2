"""Utilities of all other parts: errors, files, metrics, class names, hardware."""
