"""From bytes to batches: sources, the one preprocessing, augmentation and the input pipeline."""
