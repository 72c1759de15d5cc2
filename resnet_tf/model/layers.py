"""Custom layers: fused BatchNorm, parameter-free shortcut, padding of max pooling, weight-standardized convolution."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

_FUSED_DTYPES = ("float32", "bfloat16", "float16")


@keras.saving.register_keras_serializable("resnet_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization of Keras, computed by TensorFlow's fused kernel.

    `keras.layers.BatchNormalization` consists of elementary operations; on CPUs, training with it takes 1.3 to 1.8
    times as long (`docs/benchmarks.md`). This layer calls FusedBatchNormV3 for [N, H, W, C] and [N, L, C] float inputs
    normalized over the last axis. All other cases (masks, other ranks, `renorm=True`) are passed to Keras. Parameters,
    moving statistics and the sums inside the kernel are float32 under every precision policy. Weights are
    interchangeable with Keras's layer.

    `synchronized=True` computes the statistics over the batches of all replicas, which must have equal sizes; the fused
    kernel cannot do this, so that it is slower with several replicas.

    Reference: Ioffe and Szegedy, Batch Normalization, 2015.
    """

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        """Create a variable in float32."""
        # The fused kernel takes float32 scale, offset and statistics with bfloat16 or float16 activations.
        kwargs |= {"dtype": "float32", "autocast": False}
        return super().add_weight(*args, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Normalize over the last axis."""
        if not self._is_fusable(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        if inputs.shape.rank == 3:
            return tf.squeeze(self._normalize(inputs[:, tf.newaxis], bool(training)), axis=1)
        return self._normalize(inputs, bool(training))

    def _normalize(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """Normalize [N, H, W, C] by the fused kernel."""
        inputs = tf.cast(inputs, self.compute_dtype)
        in_training = training and self.trainable
        if in_training and self.synchronized:
            context = tf.distribute.get_replica_context()  # None in `strategy.scope()`; as in Keras
            if context and context.num_replicas_in_sync > 1:
                return self._normalize_over_replicas(inputs)
        channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else tf.ones([channels]),
            offset=self.beta if self.center else tf.zeros([channels]),
            mean=[] if in_training else self.moving_mean,
            variance=[] if in_training else self.moving_variance,
            epsilon=self.epsilon,
            is_training=in_training,
        )
        if in_training:
            # The kernel returns the variance with Bessel's correction; Keras averages the one without.
            count = tf.cast(tf.size(inputs, out_type=tf.int64) // channels, tf.float32)
            self._update_moving_statistics(mean, variance * ((count - 1) / count))
        return outputs

    def _is_fusable(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> bool:
        return (
            inputs.shape.rank in (3, 4)
            and self.axis in (-1, inputs.shape.rank - 1)
            and self.compute_dtype in _FUSED_DTYPES
            and mask is None
            and not self.renorm
        )

    def _normalize_over_replicas(self, inputs: tf.Tensor) -> tf.Tensor:
        wide = tf.cast(inputs, tf.float32)
        means, variances = tf.nn.moments(wide, axes=[0, 1, 2])
        context = tf.distribute.get_replica_context()
        # Variance over all replicas: mean of their variances plus variance of their means.
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack([means, variances, tf.square(means)]))
        mean, variance, square = tf.unstack(sums / context.num_replicas_in_sync)
        variance += square - tf.square(mean)
        self._update_moving_statistics(mean, variance)
        offset, scale = self.beta if self.center else None, self.gamma if self.scale else None
        return tf.cast(tf.nn.batch_normalization(wide, mean, variance, offset, scale, self.epsilon), inputs.dtype)

    def _update_moving_statistics(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))


@keras.saving.register_keras_serializable("resnet_tf")
class PadShortcut(keras.layers.Layer):
    """Parameter-free shortcut: every `stride`-th pixel, zero-padded channels (option A).

    Input [N, H, W, C], output [N, ceil(H / stride), ceil(W / stride), filters], with zeros before and after the C
    channels; [N, L, C] likewise.

    Reference: He et al., Deep Residual Learning, 2015, sec. 3.3 and 4.2.
    """

    def __init__(self, filters: int, *, stride: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the subsampled and padded input."""
        missing, rank = self.filters - inputs.shape[-1], inputs.shape.rank
        # Equal to inputs[:, ::stride, ::stride], but several times faster, forward and backward.
        kept = tf.nn.avg_pool(inputs, ksize=1, strides=self.stride, padding="SAME")
        return tf.pad(kept, [[0, 0]] * (rank - 1) + [[missing // 2, missing - missing // 2]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        batch, *space, _ = input_shape
        return (batch, *(None if size is None else -(-size // self.stride) for size in space), self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return super().get_config() | {"filters": self.filters, "stride": self.stride}


@keras.saving.register_keras_serializable("resnet_tf")
class EdgePadding(keras.layers.Layer):
    """Repeat the border pixels once, which before max pooling over 3 pixels is equal to padding with -inf.

    A window that reads a copy also reads its original. Zeros would exceed the negative values of SiLU or GELU, and -inf
    has no representation in int8.

    Input [N, H, W, C], output [N, H + 2, W + 2, C]; [N, L, C] likewise.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the padded input."""
        for axis in range(1, inputs.shape.rank - 1):
            first, last = ((slice(None),) * axis + (edge,) for edge in (slice(1), slice(-1, None)))
            inputs = tf.concat([inputs[first], inputs, inputs[last]], axis)
        return inputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        batch, *space, channels = input_shape
        return (batch, *(None if size is None else size + 2 for size in space), channels)


@keras.saving.register_keras_serializable("resnet_tf")
class StandardizedConv2D(keras.layers.Conv2D):
    """Conv2D whose kernel is standardized to mean 0 and variance 1 per output channel.

    Reference: Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization, 2019, with
    the epsilon of Kolesnikov et al., Big Transfer, 2019.
    """

    EPSILON = 1e-8

    def standardized(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return the kernel [h, w, in, out], float32 or float64, standardized per output channel."""
        mean, variance = tf.nn.moments(kernel, axes=[0, 1, 2], keepdims=True)
        return (kernel - mean) * tf.math.rsqrt(variance + self.EPSILON)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve with the standardized kernel."""
        standard = self.standardized(tf.cast(kernel, tf.float32))
        return super().convolution_op(inputs, tf.cast(standard, inputs.dtype))


def has_lora(layer: keras.Layer) -> bool:
    """Return True for a layer with a kernel after `enable_lora`; an Embedding has other variables."""
    return getattr(layer, "lora_enabled", False) and hasattr(layer, "kernel")


def merged_kernel(layer: keras.Layer) -> np.ndarray:
    """Return the kernel of a layer with LoRA and its update (Hu et al. 2021), float32.

    The attribute `kernel` is their sum in the dtype of the computation, which may be bfloat16.
    """
    kernel, first, second = (
        keras.ops.convert_to_numpy(each) for each in (layer._kernel, layer.lora_kernel_a, layer.lora_kernel_b)
    )
    return kernel + np.float32(layer.lora_alpha / layer.lora_rank) * (first @ second)
