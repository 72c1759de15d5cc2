"""One training loop for every strategy, and what it stands on."""
