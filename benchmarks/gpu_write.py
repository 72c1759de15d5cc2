"""First half of benchmarks/gpu.py: write the training step as HLO for GPU, and reference values. Needs no GPU."""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gpu_torch
import keras
import numpy as np
import tensorflow as tf
import torch
from gpu_cases import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Case,
    Results,
    Variable,
    batch,
    initial_values,
    run,
    save,
)
from safetensors.numpy import save_file

import resnet_tf
from resnet_tf.config import Config, OptimizerConfig
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.model.weights.mapping import to_torchvision
from resnet_tf.training.optimizers.create import create_optimizer


class TrainingStep:
    """The training step as a pure function: (variables, images, labels) -> (variables, loss).

    Attributes:
        variables: descriptions of the variables, in the order of the arguments.
    """

    def __init__(self, case: Case):
        self._case = case
        keras.config.set_dtype_policy(case.precision)
        self.model = create_network(case)
        settings = OptimizerConfig(name="sgd", momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, decay_all=True)
        self.optimizer = create_optimizer(Config(optimizer=settings), TrainingLength(1, 1), self.model)
        self._weights, self._state = list(self.model.trainable_variables), list(self.model.non_trainable_variables)
        groups = {"weight": self._weights, "velocity": self.optimizer.momentums, "statistic": self._state}
        self._all = [each for group in groups.values() for each in group]
        zero_gammas = {id(each) for each in self._weights if each.name == "gamma" and not np.any(each)}
        self.variables = tuple(
            Variable(each.path, role, tuple(each.shape), ends_branch=id(each) in zero_gammas)
            for role, group in groups.items()
            for each in group
        )
        _assign_through_variables(self.optimizer, self._weights)

    def __call__(self, *arguments: tf.Tensor) -> list[tf.Tensor]:
        *values, images, labels = arguments
        weights = values[: len(self._weights)]
        mapping = list(zip(self._all, values, strict=True))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            with keras.StatelessScope(state_mapping=mapping) as scope:
                logits = self.model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        mapping = [(each, scope.get_current_value(each)) for each in self._all]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            for gradient, weight in zip(tape.gradient(loss, weights), self._weights, strict=True):
                self.optimizer.update_step(gradient, weight, LEARNING_RATE)
        return [*(scope.get_current_value(each) for each in self._all), loss]

    def hlo(self) -> bytes:
        """Return the serialized HLO for GPU, before any optimization."""
        case = self._case
        signature = [tf.TensorSpec(each.shape, each.dtype) for each in self._all]
        signature += [tf.TensorSpec([case.batch, case.size, case.size, 3]), tf.TensorSpec([case.batch], tf.int32)]
        # On a GPU, the default precision of HLO in float32 would allow TF32.
        tf.config.experimental.enable_tensor_float_32_execution(case.precision != "float32")
        try:
            function = tf.function(self, jit_compile=True, autograph=False)
            return function.experimental_get_compiler_ir(*signature)(stage="hlo_serialized", platform_name="GPU")
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(True)

    def on_cpu(self) -> Results:
        """Run the step with TensorFlow on the CPU."""
        function = tf.function(self, autograph=False)

        def step(values, images, labels):
            *values, loss = function(*map(tf.constant, (*values, images, labels)))
            return values, loss

        return run(step, self.variables, self._case)


def create_network(case: Case, **settings) -> keras.Model:
    shape = (case.size, case.size, 3)
    knobs = {"stem": "small"} if case.small_stem else {}
    return resnet_tf.create_model(case.network, num_classes=case.classes, input_shape=shape, **knobs, **settings)


def _assign_through_variables(optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]) -> None:
    """Make the optimizer assign to Keras variables, as a StatelessScope requires, instead of tf.Variables."""
    indices = {id(weight): index for index, weight in enumerate(weights)}
    optimizer._get_variable_index = lambda variable: indices[id(variable)]
    optimizer.assign = lambda variable, value: variable.assign(value)
    optimizer.assign_add = lambda variable, value: variable.assign(variable + value)
    optimizer.assign_sub = lambda variable, value: variable.assign(variable - value)


def reference(variables: Sequence[Variable], case: Case) -> Results:
    """Return the results of PyTorch on the CPU: in float64 for float32 cases, in float32 for bfloat16 cases."""
    start = initial_values(variables)
    keras.config.set_dtype_policy("float32")
    model = create_network(case)
    pairs = {each.path: each for each in model.variables}
    for variable, value in zip(variables, start, strict=True):
        if variable.role != "velocity":
            pairs[variable.name].assign(value)
    dtype = torch.float64 if case.precision == "float32" else torch.float32
    torch_run = gpu_torch.Reference(case, to_torchvision(model), dtype)
    for _ in range(case.steps):
        torch_run.step(*batch(case))
    after = torch_run.state()
    after, gradients, buffers = (
        _from_torch(case, after | each) for each in ({}, torch_run.gradients, torch_run.buffers())
    )
    weights = [each.name for each in variables if each.role == "weight"]
    statistics = [each.name for each in variables if each.role == "statistic"]
    return Results(
        losses=np.asarray(torch_run.losses),
        gradients=[gradients[name] for name in weights],
        velocities=[-LEARNING_RATE * buffers[name] for name in weights],
        weights=[after[name] for name in weights],
        statistics=[after[name] for name in statistics],
    )


def _from_torch(case: Case, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert arrays with torchvision's names and layout to the names and layout of this package."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.safetensors"
        save_file({name: np.ascontiguousarray(array, np.float32) for name, array in state.items()}, path)
        return {each.path: each.numpy() for each in create_network(case, weights=path).variables}


def write(case: Case, directory: Path) -> None:
    """Write NAME.hlo (step), NAME.npz (reference values) and NAME.json (settings and variables) of a case."""
    start = time.perf_counter()
    step = TrainingStep(case)
    hlo = step.hlo()
    expected = reference(step.variables, case)
    save(case, directory, hlo, step.variables, expected, {"tensorflow": tf.__version__, "torch": torch.__version__})
    seconds = time.perf_counter() - start
    print(f"{case.title}: {len(hlo):,} bytes of HLO, loss {expected.losses[0]:.6f}, {seconds:.0f} s", file=sys.stderr)
