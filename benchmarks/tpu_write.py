"""Write the training and the evaluation step of a configuration as HLO for TPU. Needs tensorflow-tpu, and no TPU.

The `tensorflow` wheel has no TPU kernels. An operation that TPUs do not compute is refused here, by name.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.config import Config, load_config
from resnet_tf.data.augmentation import mixing
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.inputs import create_preprocess
from resnet_tf.training import run
from resnet_tf.training.losses import Objective
from resnet_tf.training.optimizers.create import create_optimizer
from resnet_tf.training.step import TrainStep
from resnet_tf.training.weight_average import WeightAverage

EXAMPLES = 1_281_167  # of ImageNet, from which the lengths of schedules follow


@dataclasses.dataclass(frozen=True)
class Program:
    """A step as HLO.

    Attributes:
        hlo: serialized, with every variable as an argument and its new value as a result.
        variables: number of variables, the first arguments and results.
        batch: images of a step on one chip.
        image_shape: of one image.
        weights: number of weights.
    """

    hlo: bytes
    variables: int
    batch: int
    image_shape: tuple[int, ...]
    weights: int

    def save(self, path: Path) -> None:
        """Write NAME.hlo and NAME.json."""
        path.write_bytes(self.hlo)
        facts = {name: value for name, value in dataclasses.asdict(self).items() if name != "hlo"}
        path.with_suffix(".json").write_text(json.dumps(facts | {"tensorflow": tf.__version__}) + "\n")


class Steps:
    """Training and evaluation step of a configuration on one of several chips, as pure functions of their variables.

    Args:
        config: configuration; `data.batch_size` is that of all chips together.
        classes: number of classes of the data.
        chips: number of chips that exchange gradients.
        size: image size of the training step in pixels, if it differs from that of the data, or None.
    """

    def __init__(self, config: Config, *, classes: int, chips: int = 1, size: int | None = None):
        if config.runtime.precision == "auto":
            config = dataclasses.replace(
                config, runtime=dataclasses.replace(config.runtime, precision="mixed_bfloat16")
            )
        keras.config.set_dtype_policy(config.runtime.precision)
        self._config, self._size, self._batch = config, size, config.data.batch_size // chips
        self._length = TrainingLength(max(EXAMPLES // config.data.batch_size, 1), 100_000)
        self.model = run.create_network(config, num_classes=classes, weights=None)
        self.model.trainable = True
        optimizer = create_optimizer(config, self._length, self.model)
        average = WeightAverage(self.model, config.train.ema) if config.train.ema else None
        self._preprocess = create_preprocess(config.data, None)
        self.train = TrainStep(
            config,
            self.model,
            optimizer,
            Objective(config.loss, np.full(classes, EXAMPLES // classes)),
            average,
            tf.distribute.get_strategy(),
            self._preprocess,
            None,
            on_accelerator=True,
        )
        self.train._replicas = chips
        self.train._sum = self._cross_replica_sum
        averages = average._averages if average else []
        known = {id(each): each for each in [*self.model.variables, *optimizer.variables, *averages]}
        self._variables = list(known.values())
        _use_keras_variables(self.train, optimizer)
        self._chips = chips

    def training(self) -> Program:
        """Return the training step: forward and backward pass, reduction, and the update of all variables."""
        specs = [self._images(), tf.TensorSpec([self._batch], tf.int64)]
        if mixing.is_enabled(self._config.augment):
            specs.append(tf.TensorSpec([self._batch, 5], tf.float32))

        def step(*batch: tf.Tensor) -> tf.Tensor:
            return self.train._complete(*batch, head_only=False, size=self._size)

        return self._program(step, specs)

    def evaluation(self) -> Program:
        """Return the step of an evaluation: logits of normalized images."""

        def step(images: tf.Tensor) -> tf.Tensor:
            return self.model(self._preprocess.from_batch(images), training=False)

        return self._program(step, [self._images()])

    def _images(self) -> tf.TensorSpec:
        shape = (*self._preprocess.spatial_shape, self._config.data.channels)
        return tf.TensorSpec([self._batch, *shape], self._preprocess.batch_dtype)

    def _program(self, step: Callable[..., tf.Tensor], specs: list[tf.TensorSpec]) -> Program:
        count = len(self._variables)

        def pure(*arguments: tf.Tensor) -> list[tf.Tensor]:
            mapping = list(zip(self._variables, arguments[:count], strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                result = step(*arguments[count:])
            return [*(scope.get_current_value(each) for each in self._variables), result]

        arguments = [tf.TensorSpec(each.shape, each.dtype) for each in self._variables] + specs
        function = tf.function(pure, jit_compile=True, autograph=False)
        write = function.experimental_get_compiler_ir(*arguments)
        hlo = write(stage="hlo_serialized", platform_name="TPU")
        return Program(hlo, count, self._batch, tuple(specs[0].shape[1:]), self.model.count_params())

    def _cross_replica_sum(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        group = tf.constant([list(range(self._chips))])
        return [tf.raw_ops.CrossReplicaSum(input=each, group_assignment=group) for each in tensors]


def _use_keras_variables(step: TrainStep, optimizer: keras.optimizers.Optimizer) -> None:
    """Let a step read and write Keras variables, which a StatelessScope replaces, and not their tf.Variables."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)

    def update(gradients: list[tf.Tensor], variables: list[keras.Variable], learning_rate: Any) -> None:
        for gradient, variable in zip(gradients, variables, strict=True):
            inner.update_step(gradient, variable, learning_rate)

    indices = {id(variable): index for index, variable in enumerate(inner._trainable_variables)}
    inner._backend_update_step = update
    inner._check_variables_are_known = lambda variables: None
    inner._get_variable_index = lambda variable: indices[id(variable)]
    inner.assign = lambda variable, value: variable.assign(inner._select(variable, value))

    def forward(inputs: tf.Tensor, state: list[tf.Tensor], *, training: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """As `TrainStep._forward`, with the values of all variables, as StatelessScopes do not nest."""
        mapping = [(each, each.value) for each in step._variables] + list(zip(step._state, state, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            logits = step._model(inputs, training=training)
        return logits, [scope.get_current_value(variable) for variable in step._state]

    step._forward = forward


def main(name: str, path: str, *overrides: str) -> None:
    """Write a step: python benchmarks/tpu_write.py RECIPE FILE [part=evaluation] [chips=4] [classes=10] key=value..."""
    settings = dict(each.split("=") for each in overrides if "." not in each.split("=")[0])
    config = load_config(name, [each for each in overrides if "." in each.split("=")[0]])
    size = int(settings["size"]) if "size" in settings else None
    start = time.perf_counter()
    steps = Steps(config, classes=int(settings.get("classes", 1000)), chips=int(settings.get("chips", 1)), size=size)
    program = steps.evaluation() if settings.get("part") == "evaluation" else steps.training()
    program.save(Path(path))
    print(f"{len(program.hlo):,} bytes of HLO in {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
