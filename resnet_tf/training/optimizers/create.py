"""The optimizer: Keras's own by name, with decay where the papers put it and a rate of its own for each weight."""

import functools
from typing import Any

import keras
import tensorflow as tf

from resnet_tf.config import Config, OptimizerConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.training import learning_rate
from resnet_tf.training.optimizers.update_rules import RULES

# A fixed name: Keras would number the optimizers of a process, and checkpoints go by the names of variables.
_NAME = "optimizer"
# Wrappers, and one that only Keras's own fit can drive.
_NOT_OURS = {"Optimizer", "MultiOptimizer", "OptimizerMap", "LossScaleOptimizer", "ScheduleFreeAdamW"}


def list_optimizers() -> list[str]:
    """The names that `optimizer.name` takes."""
    classes = (value for name, value in vars(keras.optimizers).items() if name not in _NOT_OURS)
    named = {value.__name__.lower() for value in classes if isinstance(value, type) and value is not type}
    return sorted(named | set(RULES))


def create_optimizer(config: Config, length: TrainingLength, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer, built for the model's variables. Call it inside the strategy's scope.

    Its `apply` takes gradients that are summed over the replicas already.

    Raises:
        UserError: if there is no optimizer of that name.
    """
    settings = config.optimizer
    kind, arguments = _kind(settings)
    optimizer = _with_own_rates(kind)(learning_rate.learning_rate(config, length), name=_NAME, **arguments)
    if model.compute_dtype == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name=f"{_NAME}_scale")
    optimizer.build(model.trainable_variables)
    decayed = {id(variable) for variable in decayed_variables(model, settings)}
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    decays = [settings.weight_decay if id(each) in decayed else None for each in model.trainable_variables]
    inner.set_rates(decays, _shares(model.trainable_variables, settings.layer_decay))
    return optimizer


def decayed_variables(model: keras.Model, settings: OptimizerConfig) -> list[keras.Variable]:
    """The kernels: biases and BatchNorm's gamma and beta are not decayed (He et al. 2018, Bag of Tricks, sec. 3.1)."""
    if not settings.weight_decay:
        return []
    return [each for each in model.trainable_variables if settings.decay_all or each.name == "kernel"]


def _shares(variables: list[keras.Variable], layer_decay: float) -> list[float]:
    """The share of the learning rate of each variable, by its block's distance from the class head.

    Reference: Howard and Ruder, Universal Language Model Fine-tuning, 2018, sec. 3.2; Clark et al. 2020 by its name.
    """
    blocks = [_block(variable.path) for variable in variables]
    order = list(dict.fromkeys(blocks))
    return [layer_decay ** (len(order) - 1 - order.index(block)) for block in blocks]


def _block(path: str) -> str:
    """ "stage2_block1_conv2/kernel" -> "stage2_block1", which stands for all of the block; others by their layer."""
    layer = path.split("/")[0]
    return "_".join(layer.split("_")[:2]) if layer.startswith("stage") else layer.split("_")[0]


def _kind(settings: OptimizerConfig) -> tuple[Any, dict[str, Any]]:
    """The class, and what the configuration says of its arguments."""
    name = settings.name.lower()
    if name not in list_optimizers():
        raise UserError(f"unknown optimizer.name {settings.name!r}; did you mean {closest(name, list_optimizers())}?")
    if name == "adamw":  # Adam's direction; the decay is ours, as that of all others
        return keras.optimizers.Adam, {}
    kind = RULES.get(name) or next(each for each in vars(keras.optimizers).values() if _is_named(each, name))
    if name in ("sgd", "lars"):
        return kind, {"momentum": settings.momentum, "nesterov": settings.nesterov}
    if name == "muon":
        return kind, {
            "momentum": settings.momentum,
            "nesterov": settings.nesterov,
            "weight_decay": None,
            "adam_weight_decay": None,
        }
    return kind, {}


def _is_named(value: Any, name: str) -> bool:
    return isinstance(value, type) and value.__name__.lower() == name


def learning_rate_factor(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Return the factor on the learning-rate schedule, a float32 scalar that callbacks change."""
    return getattr(optimizer, "inner_optimizer", optimizer).learning_rate_factor


@functools.cache
def _with_own_rates(kind: Any) -> Any:
    """Return a Keras optimizer class with a decay and a fraction of the learning rate for each weight.

    Its learning rate is that of its schedule times `learning_rate_factor`, 1 at first. Assigning `learning_rate`, as
    Keras's `ReduceLROnPlateau` and `LearningRateScheduler` do, changes the factor: the schedule goes on from there.
    """

    class Rated(kind):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # Keras tracks the attribute as one of the optimizer's variables, so that checkpoints hold it.
            self.learning_rate_factor = keras.Variable(1.0, trainable=False, name="learning_rate_factor")

        @property
        def learning_rate(self) -> tf.Tensor:
            return super().learning_rate * self.learning_rate_factor.value

        @learning_rate.setter
        def learning_rate(self, value: float | tf.Tensor) -> None:
            scheduled = float(super().learning_rate)
            if not scheduled:
                raise UserError(
                    f"a callback set the learning rate to {float(value):g} where the schedule is at 0; "
                    "optimizer.schedule=constant and optimizer.warmup_epochs=0 leave the learning rate to callbacks"
                )
            self.learning_rate_factor.assign(float(value) / scheduled)

        def set_rates(self, decays: list[float | None], shares: list[float]) -> None:
            """The decay of each variable, None for those that have none, and its share of the learning rate."""
            self._decays, self._shares = decays, shares

        def decay_of(self, variable: keras.Variable) -> float | None:
            return self._decays[self._get_variable_index(variable)]

        def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
            learning_rate = learning_rate * self._shares[self._get_variable_index(variable)]
            decay = self.decay_of(variable)
            if decay is not None and not getattr(kind, "DECAYS_ITSELF", False):
                if kind is keras.optimizers.SGD:
                    gradient = gradient + decay * variable  # L2, as the ResNet papers decay
                else:
                    variable.assign_sub(decay * learning_rate * variable)  # Loshchilov and Hutter 2019
            super().update_step(gradient, variable, learning_rate)

        def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
            return grads_and_vars  # the training step has summed them, to see and to clip their norm

    Rated.__name__ = kind.__name__
    return Rated
