"""What a run will do, before it does it."""

import keras

from resnet_tf.config import Config
from resnet_tf.data.sources import open_source
from resnet_tf.model.cost import count_multiply_adds, count_saved_activations
from resnet_tf.training import default_settings, runtime
from resnet_tf.training.run import create_network
from resnet_tf.training.trainer import Trainer

# Where paths join, a map's gradient, that of the map before, and the sum of the two.
_GRADIENTS = 3
# What the graph, the kernels and their scratch memory take, as `benchmarks/memory.py` found it on a CPU.
_BYTES_A_LAYER = 1_300_000


def make_plan(config: Config) -> dict[str, str]:
    """What a run is made of and how much, by name, in words. It does what a run does before its first step.

    Raises:
        UserError: for whatever would keep the run from starting.
    """
    config = default_settings.resolve(config)
    strategy = runtime.start(config.runtime)
    source = open_source(config.data)
    trainer = Trainer(config, source, strategy)
    data, optimizer, length = config.data, config.optimizer, trainer.length
    over = source.train.num_examples - length.steps_per_epoch * data.batch_size
    policy, reason = runtime.choose_precision(config.runtime.precision)
    replicas = strategy.num_replicas_in_sync
    # A network for pictures of any size has no cost of its own.
    sized = create_network(config, num_classes=len(source.class_names), side=data.image_size)
    return {
        "network": f"{config.model.name}, {trainer.model.count_params():,} parameters, "
        f"{count_multiply_adds(sized) / 1e9:.3g} billion multiply-adds at {data.size_in_words}",
        "data": f"{source.name}: {source.train.num_examples:,} examples to train on, {source.test.num_examples:,} to "
        f"test, {len(source.class_names):,} classes",
        "classes": source.describe_classes(),
        "steps": f"{length.total_steps:,} of {data.batch_size}: {config.train.epochs} epochs of "
        f"{length.steps_per_epoch:,}; {over:,} other pictures are left out of each",
        "learning rate": f"{optimizer.name}, {config.peak_learning_rate:.4g} at its peak, {optimizer.schedule}",
        "runs on": f"{replicas} replica(s) by {type(strategy).__name__} (runtime.strategy={config.runtime.strategy}), "
        f"{data.batch_size // replicas} pictures each",
        "precision": f"{policy} ({reason})",
        "memory": _memory(trainer, sized),
    }


def _memory(trainer: Trainer, sized: keras.Model) -> str:
    """The largest parts of what a step takes; `benchmarks/memory.py` compares it with what is taken."""
    config = trainer.config
    half = keras.config.dtype_policy().compute_dtype != "float32"
    trainable = sum(variable.value.shape.num_elements() for variable in trainer.model.trainable_variables)
    slots = sum(variable.value.shape.num_elements() for variable in trainer.optimizer.variables)
    parts = config.train.accumulate
    gradients = trainable * (2 if parts > 1 else 1)  # of a part, and the sum over parts
    weights = 4 * (sized.count_params() + gradients + slots)  # float32 under every policy
    pictures = config.data.batch_size // trainer.strategy.num_replicas_in_sync // parts
    every_map, largest = count_saved_activations(sized)
    maps = (2 if half else 4) * (every_map + _GRADIENTS * largest) * pictures
    shares = f"{_megabytes(maps)} of feature maps, {_megabytes(weights)} of weights, gradients and optimizer"
    work = _BYTES_A_LAYER * len(sized.layers)
    return f"about {_megabytes(weights + maps + work)} on each replica: {shares}, {_megabytes(work)} to work in"


def _megabytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MB"
