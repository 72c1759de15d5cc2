"""Recursion limit for building deep Functional models."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Keras walks a graph by recursion, one frame per layer along the shortcuts: about 1,200 in resnet1202.
_FRAMES = 20_000
_lock = threading.RLock()


@contextmanager
def deep_graph() -> Iterator[None]:
    """Raise Python's recursion limit within a `with` block, to build Functional models as deep as `resnet1202`.

    `ResidualNetwork` does so itself, also when it is cloned, copied or loaded. Only a `keras.Model` made from the
    tensors of such a network needs it:

        with deep_graph():
            last_maps = keras.Model(network.input, network.get_layer("pool").input)

    Python's own frames are on the heap, so a higher limit costs no stack. The limit belongs to the process, so threads
    take turns.
    """
    with _lock:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, _FRAMES))
        try:
            yield
        finally:
            sys.setrecursionlimit(before)
