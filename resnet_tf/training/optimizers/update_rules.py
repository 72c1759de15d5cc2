"""Update rules that Keras lacks or defines differently: LARS, LAMB, Nadam, and Muon for convolutions."""

from typing import Any

import keras
import tensorflow as tf

_LEAST_RANK = 3  # of a kernel of a convolution: [L, inputs, outputs]


class Lars(keras.optimizers.SGD):
    """SGD with momentum and a layer-wise trust ratio 0.001 |weight| / (|gradient| + decay * |weight|).

    The ratio is 1 where the weight or the gradient is 0, as in timm. Variables that are excluded from weight decay
    (biases and parameters of normalizations) are not scaled, as in the MLPerf reference. A weight decay of 0 excludes
    none.

    Reference: You et al., Large Batch Training of Convolutional Networks, 2017.
    """

    DECAYS_ITSELF = True
    TRUST = 0.001

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable."""
        decay = self.decay_of(variable)
        if decay is None:
            super().update_step(gradient, variable, learning_rate)
            return
        weight_norm, gradient_norm = tf.norm(variable), tf.norm(gradient)
        ratio = self.TRUST * tf.math.divide_no_nan(weight_norm, gradient_norm + decay * weight_norm)
        ratio = tf.where((weight_norm > 0) & (gradient_norm > 0), ratio, 1.0)
        super().update_step((gradient + decay * variable) * ratio, variable, learning_rate)


class Lamb(keras.optimizers.Lamb):
    """Adam with decoupled weight decay, scaled per variable by the trust ratio |weight| / |update|.

    Keras's `Lamb` applies weight decay outside of the trust ratio. Variables that are excluded from weight decay
    (biases and parameters of normalizations) are not scaled. A weight decay of 0 excludes none.

    Reference: You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, 2019, algorithm 2.
    """

    DECAYS_ITSELF = True

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable."""
        index = self._get_variable_index(variable)
        decay = self.decay_of(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        step = tf.cast(self.iterations + 1, tf.float32)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (tf.square(gradient) - velocity) * (1 - self.beta_2))
        mean = momentum / (1 - tf.pow(self.beta_1, step))
        root = tf.sqrt(velocity / (1 - tf.pow(self.beta_2, step)))
        update = mean / (root + self.epsilon)
        if decay is not None:  # also for 0
            update += decay * variable
            update *= _ratio(tf.norm(variable), tf.norm(update))
        self.assign_sub(variable, learning_rate * update)


class Nadam(keras.optimizers.Nadam):
    """Nadam whose momentum schedule starts at the first step of each variable.

    Keras's `Nadam` has one product of the momentum coefficients, of all steps, for all variables.

    Reference: Dozat, Incorporating Nesterov Momentum into Adam, 2016.
    """

    @property
    def _u_product(self) -> Any:
        if not self.first_step:
            return self._common_product
        # Later factors are without effect: 1 minus a product of 200 coefficients below 0.9 is 1 in float32.
        step = tf.range(1.0, 201.0)
        coefficients = self.beta_1 * (1 - 0.5 * tf.pow(0.96, step))
        return tf.reduce_prod(tf.where(step <= tf.cast(self.iterations + 1, tf.float32), coefficients, 1.0))

    @_u_product.setter
    def _u_product(self, variable: keras.Variable) -> None:
        self._common_product = variable


class Muon(keras.optimizers.Muon):
    """Muon for convolutions, as matrices [H * W * inputs, outputs], or [L * inputs, outputs] in one dimension.

    Keras's `Muon` updates convolutions by Adam. Here, Adam updates the head, biases and parameters of normalizations.
    The iteration that makes an update orthogonal is computed in `iteration_dtype`; bfloat16 is enough for it, as in
    Jordan's own code.

    Reference: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
    """

    def __init__(self, *args: Any, iteration_dtype: str = "float32", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._iteration_dtype = iteration_dtype

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) < _LEAST_RANK

    def _muon_update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, lr: tf.Tensor, m: keras.Variable
    ) -> None:
        self.assign_add(m, gradient + m * (self.momentum - 1))
        update = gradient + self.momentum * m if self.nesterov else m
        matrix = tf.cast(tf.reshape(update, [-1, variable.shape[-1]]), self._iteration_dtype)
        orthogonal = tf.cast(self.zeropower_via_newtonschulz5(matrix, self.ns_steps), variable.dtype)
        self.assign_sub(variable, tf.reshape(self.lr_adjust(lr * orthogonal), variable.shape))


def _ratio(weight: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
    """Return weight / update, or 1 where either is 0."""
    return tf.where((weight > 0) & (update > 0), tf.math.divide_no_nan(weight, update), 1.0)


UPDATE_RULES: dict[str, Any] = {"lars": Lars, "lamb": Lamb, "nadam": Nadam, "muon": Muon}
