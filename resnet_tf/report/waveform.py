"""A signal as a small picture, for where pictures are shown."""

import numpy as np

_WIDTH, _HEIGHT = 96, 64  # pixels, the height shared by the channels
_LEAST = 16  # pixels of a channel's height


def draw_signal(signal: np.ndarray) -> np.ndarray:
    """Black on white, each channel in a band of its own: zero in its middle, its largest sample at an edge.

    Takes float [L, C] and returns uint8 [height, width, 1]. A column spans all the samples that fall to it.
    """
    length, channels = signal.shape
    edges = np.linspace(0, length, min(length, _WIDTH) + 1).astype(int)
    following = signal[np.minimum(edges[1:], length - 1)]  # so that columns join
    low = np.minimum(np.minimum.reduceat(signal, edges[:-1]), following)
    high = np.maximum(np.maximum.reduceat(signal, edges[:-1]), following)
    scale = np.maximum(np.abs(signal).max(axis=0), np.finfo(np.float32).tiny)
    height = max(_HEIGHT // channels, _LEAST)
    top, bottom = (np.rint((1 - edge / scale) / 2 * (height - 1)) for edge in (high, low))
    row = np.arange(height)[:, np.newaxis, np.newaxis]
    ink = (row >= top) & (row <= bottom)  # [height, width, channels]
    bands = ink.transpose(2, 0, 1).reshape(channels * height, -1, 1)
    return np.where(bands, 0, 255).astype(np.uint8)
