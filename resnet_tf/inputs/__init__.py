"""Input types: preprocessing of images and signals."""
