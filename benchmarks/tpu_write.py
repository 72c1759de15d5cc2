"""Write the training and the evaluation step of a configuration as HLO for TPU. Needs tensorflow-tpu, and no TPU.

The `tensorflow` wheel has no TPU kernels. An operation that TPUs do not compute is refused here, by name.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from tpu_cases import Case

from resnet_tf.config import load_config
from resnet_tf.data.augmentation import mixing
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.inputs import create_preprocess
from resnet_tf.training import run, trainer
from resnet_tf.training.image_size import without_data
from resnet_tf.training.losses import Objective
from resnet_tf.training.optimizers import conditional
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
    """Training and evaluation step on one of several chips, as pure functions of their variables."""

    def __init__(self, case: Case):
        config = without_data(load_config(case.recipe, case.settings))
        precision = config.runtime.precision
        keras.config.set_dtype_policy("mixed_bfloat16" if precision == "auto" else precision)
        self._config, self._chips, self._batch = config, case.chips, config.data.batch_size // case.chips
        steps = max(EXAMPLES // config.data.batch_size, 1)
        classes = case.classes
        self.model = run.create_network(config, num_classes=classes, weights=None)
        trainer.prepare_layers(self.model, config)
        optimizer = create_optimizer(config, TrainingLength(steps, steps * config.train.epochs), self.model)
        average = WeightAverage(self.model, config.train.ema) if config.train.ema else None
        self._preprocess = create_preprocess(config.data, self.model.preprocess)
        teacher = run.create_network(config, num_classes=classes, weights=None) if case.distilled else None
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
        self.train._replicas = case.chips
        others = [*(average._averages if average else []), *(teacher.variables if teacher else [])]
        known = {id(each): each for each in [*self.model.variables, *optimizer.variables, *others]}
        self._variables = list(known.values())
        if teacher:
            self.train._teacher = lambda inputs: teacher(inputs, training=False)
        _use_keras_variables(self.train, optimizer)

    def training(self) -> Program:
        """Return the training step: forward and backward pass, reduction, and the update of all variables."""
        arguments = [self._images(), tf.TensorSpec([self._batch], tf.int64)]
        if mixing.is_enabled(self._config.augment):
            arguments.append(tf.TensorSpec([self._batch, 5], tf.float32))

        def step(*batch: tf.Tensor) -> tf.Tensor:
            return self.train._complete(*batch, head_only=False, size=trainer.size_in_epoch(self._config, 0))

        return self._program(step, arguments)

    def evaluation(self) -> Program:
        """Return the step of an evaluation: logits of normalized images."""

        def step(images: tf.Tensor) -> tf.Tensor:
            return self.model(self._preprocess.from_batch(images), training=False)

        return self._program(step, [self._images()])

    def _images(self) -> tf.TensorSpec:
        shape = (*self._preprocess.spatial_shape, self._config.data.channels)
        return tf.TensorSpec([self._batch, *shape], self._preprocess.batch_dtype)

    def _program(self, step: Callable[..., tf.Tensor], batch: list[tf.TensorSpec]) -> Program:
        count = len(self._variables)

        def pure(*arguments: tf.Tensor) -> list[tf.Tensor]:
            mapping = list(zip(self._variables, arguments[:count], strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope, _replica_of(self._chips):
                result = step(*arguments[count:])
            return [*(scope.get_current_value(each) for each in self._variables), result]

        signature = [*(tf.TensorSpec(each.shape, each.dtype) for each in self._variables), *batch]
        function = tf.function(pure, jit_compile=True, autograph=False)
        write = function.experimental_get_compiler_ir(*signature)
        hlo = write(stage="hlo_serialized", platform_name="TPU")
        return Program(hlo, count, self._batch, tuple(batch[0].shape[1:]), self.model.count_params())


@contextlib.contextmanager
def _replica_of(chips: int) -> Iterator[None]:
    """Let code run as one of several replicas, with the reduction of `TPUStrategy`."""

    def all_reduce(operation: tf.distribute.ReduceOp, values: Any) -> Any:
        group = tf.constant([list(range(chips))])
        assert operation is tf.distribute.ReduceOp.SUM
        return tf.nest.map_structure(
            lambda value: tf.raw_ops.CrossReplicaSum(input=value, group_assignment=group), values
        )

    context = mock.Mock(num_replicas_in_sync=chips, all_reduce=all_reduce)
    if chips == 1:
        yield
        return
    with mock.patch.object(tf.distribute, "get_replica_context", return_value=context):
        yield


def _use_keras_variables(step: TrainStep, optimizer: keras.optimizers.Optimizer) -> None:
    """Let a step read and write Keras variables, which a StatelessScope replaces, and not their tf.Variables."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)

    def update(gradients: list[tf.Tensor], variables: list[keras.Variable], learning_rate: Any) -> None:
        for gradient, variable in zip(gradients, variables, strict=True):
            inner.update_step(gradient, variable, learning_rate)

    conditional._assign = lambda variable, value: variable.assign(value)
    indices = {id(variable): index for index, variable in enumerate(inner._trainable_variables)}
    inner._backend_update_step = update
    inner._check_variables_are_known = lambda variables: None
    inner._apply_weight_decay = lambda variables: None  # `update_step` decays
    inner._get_variable_index = lambda variable: indices[id(variable)]
    inner.assign = lambda variable, value: variable.assign(inner._select(variable, value))

    def forward(inputs: tf.Tensor, state: list[tf.Tensor], *, training: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """As `TrainStep._forward`, with the values of all variables, as StatelessScopes do not nest."""
        others = [each for each in (*step._variables, *step._model.variables) if not _is_in(each, step._state)]
        mapping = [(each, each.value) for each in others] + list(zip(step._state, state, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            logits = step._model(inputs, training=training)
        return logits, [scope.get_current_value(variable) for variable in step._state]

    step._forward = forward


def _is_in(variable: keras.Variable, variables: list[keras.Variable]) -> bool:
    return any(variable is each for each in variables)


def write(case: Case, directory: Path) -> str:
    """Write the files of a case; return the error of a step that TPUs do not compute, or an empty text."""
    start = time.perf_counter()
    keras.backend.clear_session()
    try:
        steps = Steps(case)
        program = steps.evaluation() if case.part == "evaluation" else steps.training()
    except (tf.errors.OpError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    program.save(directory / f"{case.name}.hlo")
    print(f"{case.name}: {len(program.hlo):,} bytes in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return ""


def main(cases: str, directory: str) -> None:
    """Write the steps of a file of cases; print a JSON object of their errors."""
    print(json.dumps({case.name: write(case, Path(directory)) for case in Case.load(Path(cases))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
