"""Optimizers by name, with the weight decay of the papers and layer-wise learning rates."""

import functools
from typing import Any

import keras
import tensorflow as tf

from resnet_tf.config import Config, OptimizerConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.model.builder import is_head
from resnet_tf.training import learning_rate
from resnet_tf.training.optimizers.applied_steps import AppliedSteps
from resnet_tf.training.optimizers.conditional import ConditionalUpdates
from resnet_tf.training.optimizers.update_rules import UPDATE_RULES

# A fixed name: Keras numbers the optimizers of a process, and checkpoints are keyed by variable names.
_NAME = "optimizer"
LOSS_SCALE = f"{_NAME}_scale"  # of the variables that only an optimizer in float16 has
# Wrappers, and one that works with `fit` only.
_UNSUPPORTED = {"Optimizer", "MultiOptimizer", "OptimizerMap", "LossScaleOptimizer", "ScheduleFreeAdamW"}


def list_optimizers() -> list[str]:
    """Return the values of `optimizer.name`."""
    classes = (value for name, value in vars(keras.optimizers).items() if name not in _UNSUPPORTED)
    named = {value.__name__.lower() for value in classes if isinstance(value, type) and value is not type}
    return sorted(named | set(UPDATE_RULES))


def create_optimizer(config: Config, length: TrainingLength, model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer, built for the variables of the model. Call it inside the strategy's scope.

    `apply` expects gradients that are summed over the replicas.

    Raises:
        UserError: for an unknown `optimizer.name`.
    """
    settings = config.optimizer
    base, arguments = _select(settings)
    if settings.name.lower() == "muon" and model.compute_dtype == "bfloat16":
        arguments["iteration_dtype"] = "bfloat16"
    optimizer = _with_layer_rates(base)(learning_rate.learning_rate(config, length), name=_NAME, **arguments)
    if model.compute_dtype == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name=LOSS_SCALE)
    optimizer.build(model.trainable_variables)
    variables = model.trainable_variables
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    decays = [settings.weight_decay if _is_decayed(each, settings) else None for each in variables]
    inner.set_rates(decays, _rate_factors(variables, settings.layer_decay))
    inner.set_first_steps(_first_steps(variables, config, length))
    return optimizer


def _first_steps(variables: list[keras.Variable], config: Config, length: TrainingLength) -> list[int]:
    """Return the first step that trains each variable: 0, except for the body after a phase of the head alone."""
    is_late = config.train.finetune == "head_then_all"
    body = config.train.head_epochs * length.steps_per_epoch if is_late else 0
    return [0 if is_head(each) else body for each in variables]


def _is_decayed(variable: keras.Variable, settings: OptimizerConfig) -> bool:
    """Return True for the variables that weight decay applies to, also if it is 0.

    These are the kernels, unless `decay_all` (He et al. 2018, Bag of Tricks, sec. 3.1).
    """
    return settings.decay_all or variable.name == "kernel"


def _rate_factors(variables: list[keras.Variable], layer_decay: float) -> list[float]:
    """Return the learning-rate factor of each variable: `layer_decay` to the power of its block's distance to the head.

    References: Howard and Ruder, Universal Language Model Fine-tuning, 2018, sec. 3.2; Clark et al., ELECTRA, 2020.
    """
    blocks = [_block(variable.path) for variable in variables]
    order = list(dict.fromkeys(blocks))
    return [layer_decay ** (len(order) - 1 - order.index(block)) for block in blocks]


def _block(path: str) -> str:
    """Return the block of a variable: "stage2_block1" for "stage2_block1_conv2/kernel", otherwise its layer."""
    layer = path.split("/")[0]
    return "_".join(layer.split("_")[:2]) if layer.startswith("stage") else layer.split("_")[0]


def _select(settings: OptimizerConfig) -> tuple[Any, dict[str, Any]]:
    """Return the optimizer class and its arguments."""
    name = settings.name.lower()
    if name not in list_optimizers():
        raise UserError(f"unknown optimizer.name {settings.name!r}; did you mean {closest(name, list_optimizers())}?")
    if name == "ftrl" and (settings.schedule != "constant" or settings.warmup_epochs):
        raise UserError(
            "optimizer.name=ftrl sums weights divided by the learning rate, which it supposes to be constant; set "
            "optimizer.schedule=constant and optimizer.warmup_epochs=0"
        )
    if name == "adamw":  # weight decay is applied in `update_step`, as for every optimizer
        return keras.optimizers.Adam, {}
    base = UPDATE_RULES.get(name) or next(each for each in vars(keras.optimizers).values() if _is_named(each, name))
    if name in ("sgd", "lars"):
        return base, {"momentum": settings.momentum, "nesterov": settings.nesterov}
    if name == "muon":
        return base, {
            "momentum": settings.momentum,
            "nesterov": settings.nesterov,
            "weight_decay": None,
            "adam_weight_decay": None,
        }
    return base, {}


def _is_named(value: Any, name: str) -> bool:
    return isinstance(value, type) and value.__name__.lower() == name


def learning_rate_factor(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Return the factor on the learning-rate schedule, a float32 scalar that callbacks change."""
    return getattr(optimizer, "inner_optimizer", optimizer).learning_rate_factor


def skipped_steps(optimizer: keras.optimizers.Optimizer) -> tf.Variable:
    """Return the number of steps that changed no weights; bias corrections count only the others."""
    return getattr(optimizer, "inner_optimizer", optimizer).skipped_steps


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the learning rate of the last step; `learning_rate` is that of the next one."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return float(inner.scheduled_rate(tf.maximum(inner.iterations.value - 1, 0)) * inner.learning_rate_factor.value)


@functools.cache
def _with_layer_rates(base: Any) -> Any:
    """Return a subclass of a Keras optimizer with weight decay and learning-rate factor per variable.

    Its learning rate is that of its schedule times `learning_rate_factor`, 1 at first. Assigning `learning_rate`, as
    Keras's `ReduceLROnPlateau` and `LearningRateScheduler` do, changes the factor: the schedule goes on from there.
    """

    class Rated(AppliedSteps, ConditionalUpdates, base):
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

        def scheduled_rate(self, step: tf.Tensor) -> tf.Tensor:
            """Return the learning rate of a step by the schedule alone."""
            return self._learning_rate(step)

        def set_rates(self, decays: list[float | None], factors: list[float]) -> None:
            """Set the weight decay, None for excluded variables, and the learning-rate factor of each variable."""
            self._decays, self._factors = decays, factors

        def decay_of(self, variable: keras.Variable) -> float | None:
            """Return the weight decay of a variable; None if the variable is excluded from weight decay."""
            return self._decays[self._get_variable_index(variable)]

        def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
            index = self._get_variable_index(variable)
            learning_rate = learning_rate * self._factors[index]
            decay = self.decay_of(variable)
            if decay and not getattr(base, "DECAYS_ITSELF", False):
                if base is keras.optimizers.SGD:
                    gradient = gradient + decay * variable  # L2 regularization, as in the ResNet papers
                else:
                    self.assign_sub(variable, decay * learning_rate * variable)  # Loshchilov and Hutter 2019
            super().update_step(gradient, variable, learning_rate)

        def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
            return grads_and_vars  # summed by the training step, which checks and clips their norm

    Rated.__name__ = base.__name__
    return Rated
