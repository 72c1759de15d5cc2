"""Choice of the training loss by the form of the targets."""

from typing import Protocol

import tensorflow as tf

from resnet_tf.config import LossConfig
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.data.sources import Source
from resnet_tf.training.losses import Objective
from resnet_tf.training.multi_label_losses import MultiLabelObjective


class Loss(Protocol):
    """Training loss per example."""

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, teacher_logits: tf.Tensor | None = None) -> tf.Tensor:
        """Return the loss of each example, float32 [B], of targets, logits and teacher logits, float32 [B, C]."""


def create_objective(config: LossConfig, source: Source) -> Loss:
    """Return the loss of a run.

    Args:
        config: the `loss` group of a configuration.
        source: data, whose class counts are for class weights and logit adjustment.

    Raises:
        UserError: for a setting that does not apply to the form of the targets.
    """
    if source.targets is MULTI_LABEL:
        return MultiLabelObjective(config, source.class_counts, examples=source.train.num_examples)
    return Objective(config, source.class_counts)
