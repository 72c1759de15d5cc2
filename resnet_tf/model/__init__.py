"""Residual networks as plain Keras Functional models."""

import sys

# Keras walks a Functional graph by recursion, a frame a layer: building, loading or cloning a network of 1,000 layers
# takes more than Python's 1,000 frames. Python's own frames lie on the heap, so a higher limit costs nothing.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))
