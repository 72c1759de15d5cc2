"""Learning-rate schedule, optimizer and weight decay, out of Keras's own parts."""

import keras
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data.pipeline import Schedule

# A fixed name: Keras would number the optimizers of a process, and checkpoints go by the names of variables.
_NAME = "optimizer"


def learning_rate(config: Config, schedule: Schedule) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warmup from 0 to the peak, then half a cosine down to 0 at the last step (Loshchilov and Hutter 2016)."""
    warmup = min(round(config.optimizer.warmup_epochs * schedule.steps_per_epoch), schedule.total_steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.peak_learning_rate,
        decay_steps=schedule.total_steps - warmup,
        warmup_target=config.peak_learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def create_optimizer(config: Config, schedule: Schedule, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer, built for the model's variables. Call it inside the strategy's scope."""
    rate = learning_rate(config, schedule)
    settings = config.optimizer
    if settings.name == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=settings.momentum, nesterov=settings.nesterov, name=_NAME)
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay, name=_NAME)
        decayed = {id(variable) for variable in decayed_variables(model)}
        optimizer.exclude_from_weight_decay(
            var_list=[variable for variable in model.trainable_variables if id(variable) not in decayed]
        )
    if model.compute_dtype == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name=f"{_NAME}_scale")
    optimizer.build(model.trainable_variables)
    return optimizer


def decayed_variables(model: keras.Model) -> list[keras.Variable]:
    """The kernels: biases and BatchNorm's gamma and beta are not decayed (He et al. 2018, Bag of Tricks, sec. 3.1)."""
    return [variable for variable in model.trainable_variables if variable.name == "kernel"]


def add_coupled_decay(
    gradients: list[tf.Tensor],
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    config: Config,
    *,
    replicas: int,
) -> list[tf.Tensor]:
    """Add the gradient of weight_decay / 2 * |kernel|^2, which is how the ResNet papers decay.

    The optimizer sums gradients over replicas, so each replica adds its share, scaled as the loss is. AdamW decays by
    itself.
    """
    if config.optimizer.name != "sgd" or not config.optimizer.weight_decay:
        return gradients
    rate = optimizer.scale_loss(config.optimizer.weight_decay / replicas)
    decayed = {id(variable) for variable in decayed_variables(model)}
    return [
        gradient + rate * variable if id(variable) in decayed else gradient
        for gradient, variable in zip(gradients, model.trainable_variables, strict=True)
    ]
