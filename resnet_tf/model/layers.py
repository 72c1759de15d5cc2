"""Layers that Keras does not have: fused BatchNorm, the parameter-free shortcut, weight standardisation."""

from typing import Any

import keras
import tensorflow as tf

_FUSED_DTYPES = ("float32", "bfloat16", "float16")


@keras.saving.register_keras_serializable("resnet_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's BatchNormalization, computed by TensorFlow's fused kernel.

    `keras.layers.BatchNormalization` is written out in elementary operations, which about halves the training speed of
    a ResNet. This one calls FusedBatchNormV3 on [N, H, W, C] and [N, L, C] float inputs normalised over the last axis.
    Everything else (masks, other ranks, `renorm=True`) is left to Keras. Parameters, moving statistics and the sums
    inside the kernel are float32 under every precision policy. Weights are interchangeable with Keras's.

    `synchronized=True` takes the statistics over the images of all replicas, which have equally many; the fused kernel
    cannot, so that is slower where there are several.

    Reference: Ioffe and Szegedy, Batch Normalization, 2015.
    """

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        # The fused kernel takes float32 scale, offset and statistics beside bfloat16 or float16 activations.
        kwargs |= {"dtype": "float32", "autocast": False}
        return super().add_weight(*args, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not self._is_fusable(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        if inputs.shape.rank == 3:
            return tf.squeeze(self._normalize(inputs[:, tf.newaxis], bool(training)), axis=1)
        return self._normalize(inputs, bool(training))

    def _normalize(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """[N, H, W, C] by the fused kernel."""
        inputs = tf.cast(inputs, self.compute_dtype)
        learning = training and self.trainable
        if learning and self.synchronized and tf.distribute.get_replica_context().num_replicas_in_sync > 1:
            return self._normalize_over_replicas(inputs)
        channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else tf.ones([channels]),
            offset=self.beta if self.center else tf.zeros([channels]),
            mean=[] if learning else self.moving_mean,
            variance=[] if learning else self.moving_variance,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
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
        # The variance of the whole is the mean of the parts' plus the variance of their means.
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
    """The parameter-free shortcut: every `stride`-th pixel, and zeros for the channels that are new (option A).

    Input [N, H, W, C], output [N, ceil(H / stride), ceil(W / stride), filters], zeros on both sides of the C channels;
    [N, L, C] likewise.

    Reference: He et al., Deep Residual Learning, 2015, sec. 3.3 and 4.2.
    """

    def __init__(self, filters: int, *, stride: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        missing, rank = self.filters - inputs.shape[-1], inputs.shape.rank
        # The same pixels as inputs[:, ::stride, ::stride], several times faster there and back.
        kept = tf.nn.avg_pool(inputs, ksize=1, strides=self.stride, padding="SAME")
        return tf.pad(kept, [[0, 0]] * (rank - 1) + [[missing // 2, missing - missing // 2]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, *space, _ = input_shape
        return (batch, *(None if size is None else -(-size // self.stride) for size in space), self.filters)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"filters": self.filters, "stride": self.stride}


@keras.saving.register_keras_serializable("resnet_tf")
class StandardizedConv2D(keras.layers.Conv2D):
    """A Conv2D whose kernel is given mean 0 and variance 1 for each output channel before it is used.

    Reference: Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization, 2019, with
    the epsilon of Kolesnikov et al., Big Transfer, 2019.
    """

    EPSILON = 1e-8

    def standardized(self, kernel: tf.Tensor) -> tf.Tensor:
        """[h, w, in, out], float32 or float64, with mean 0 and variance 1 for each of the last."""
        mean, variance = tf.nn.moments(kernel, axes=[0, 1, 2], keepdims=True)
        return (kernel - mean) * tf.math.rsqrt(variance + self.EPSILON)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        standard = self.standardized(tf.cast(kernel, tf.float32))
        return super().convolution_op(inputs, tf.cast(standard, inputs.dtype))
