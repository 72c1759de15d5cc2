"""Measurement of the robustness of a network to common corruptions."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.graphs import without_autograph
from resnet_tf.core.machine import cores
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.robustness import SEVERITIES, Robustness
from resnet_tf.core.targets import targets_of
from resnet_tf.data.corruptions import CORRUPTIONS, corrupt, parameters_for
from resnet_tf.data.sources import Split
from resnet_tf.data.unreadable import naming_nonfinite, translate_read_errors
from resnet_tf.inputs import Preprocess, pixels

_BATCH_VALUES = 2**20  # of a batch, which the caches of a processor hold in part
_MIN_BATCH, _MAX_BATCH = 8, 256
_MAX_CACHE = 2**30  # bytes of decoded images that are kept; others are decoded for each corruption and severity
_SEED = 0  # of the random numbers of corruptions


def check_corruptible(preprocess: Preprocess) -> None:
    """Check that examples can be corrupted.

    Raises:
        UserError: for an input type other than images.
    """
    if not preprocess.supports_corruptions:
        raise UserError(f"common corruptions are those of images, not of {preprocess.plural}")


def measure_robustness(
    logits: Callable[[np.ndarray], np.ndarray],
    split: Split,
    preprocess: Preprocess,
    clean: Evaluation,
    *,
    thresholds: Sequence[float] | None = None,
) -> Robustness:
    """Evaluate a network on a split with every corruption and severity.

    Images are corrupted after they are resized and cropped to the input size and rounded to 8 bits, as those of the
    published data sets, in as many threads as there are cores, while the network computes.

    Args:
        logits: function from images, float32 [B, H, W, 3] in [0, 1], to logits, float32 [B, C].
        split: images with labels.
        preprocess: preprocessing of the network.
        clean: evaluation of the network on the split.
        thresholds: see `Targets.evaluate`.

    Raises:
        UserError: for an input type other than images, an image that cannot be read, or logits that are not finite.
    """
    check_corruptible(preprocess)
    height, width, _ = preprocess.unnormalized_shape
    batches = _decoded(split, preprocess)
    metric = clean.main_metric
    scores: dict[str, list[float]] = {name: [] for name in CORRUPTIONS}
    total = split.num_examples * len(CORRUPTIONS) * len(SEVERITIES)
    progress = Progress("measuring robustness", noun="corrupted image", total=total)
    with translate_read_errors(split, preprocess), progress, ThreadPoolExecutor(cores()) as pool:
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                found = []
                for images in _corrupted(pool, batches.as_numpy_iterator(), name, severity):
                    found.append(logits(images / np.float32(255)))
                    progress.done += len(images)
                with naming_nonfinite(split):
                    evaluation = targets_of(split.labels).evaluate(
                        split.labels, np.concatenate(found), thresholds=thresholds
                    )
                scores[name].append(evaluation.to_dict()[metric])
    return Robustness(
        metric=metric,
        clean=clean.to_dict()[metric],
        scores={name: tuple(values) for name, values in scores.items()},
        parameters=parameters_for(height, width).name,
        examples=split.num_examples,
        seed=_SEED,
    )


def _decoded(split: Split, preprocess: Preprocess) -> tf.data.Dataset:
    """Return the images of a split at the input size in batches, RGB, uint8 [B, H, W, 3]."""
    size = int(np.prod(preprocess.unnormalized_shape))
    images = split.examples().map(
        without_autograph(lambda example, label: pixels.to_uint8(preprocess.to_unnormalized(example))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    batches = images.batch(min(max(_BATCH_VALUES // size, _MIN_BATCH), _MAX_BATCH))
    return batches.cache() if split.num_examples * size <= _MAX_CACHE else batches.prefetch(1)


def _corrupted(
    pool: ThreadPoolExecutor, batches: Iterable[np.ndarray], name: str, severity: int
) -> Iterator[np.ndarray]:
    """Yield the corrupted batches in order, some of them computed ahead."""
    ahead: deque[Future[np.ndarray]] = deque()
    start = 0
    for images in batches:
        indices = range(start, start + len(images))
        ahead.append(pool.submit(corrupt, images, name, severity, indices=indices, seed=_SEED))
        start += len(images)
        if len(ahead) > 2 * cores():
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()
