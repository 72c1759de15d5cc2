"""The plan of a run: network, data, steps, precision and memory, before the first step."""

from dataclasses import dataclass
from pathlib import Path

import keras

from resnet_tf.config import Config
from resnet_tf.core import devices
from resnet_tf.core.paths import user_path
from resnet_tf.core.text import counted, printable
from resnet_tf.model.cost import count_multiply_adds
from resnet_tf.training import checkpoint, runtime
from resnet_tf.training.cluster import is_chief
from resnet_tf.training.memory import megabytes
from resnet_tf.training.run import CHECKPOINTS, create_network
from resnet_tf.training.trainer import Trainer
from resnet_tf.training.workdir import check_startable
from resnet_tf.workflows.preview import plot_batch
from resnet_tf.workflows.train import start_run

_PLOTTED = 32  # examples of the first batch


@dataclass(frozen=True, repr=False)
class Plan:
    """Outcome of `plan`; `str(plan)` is a table.

    Attributes:
        facts: network, data, steps, precision, memory and so on, by name, as text.
        first_batch: path of the plot, if there is one.
    """

    facts: dict[str, str]
    first_batch: Path | None = None

    def to_dict(self) -> dict[str, str]:
        """Return the facts, with the path of the plot as `first batch`."""
        return self.facts | ({"first batch": str(self.first_batch)} if self.first_batch else {})

    def __repr__(self) -> str:
        return f"Plan({self.facts['network']!r}, steps={self.facts['steps']!r})"

    def __str__(self) -> str:
        return "\n".join(f"{name:<14} {printable(text)}" for name, text in self.to_dict().items())


@runtime.restored_state()
def plan(config: Config, *, path: str | Path | None = None, name: str = "", workdir: str | Path | None = None) -> Plan:
    """Describe a run without training: do what it does before its first step.

    For random generators and the dtype policy, see `train_and_evaluate`.

    Args:
        config: see `load_config`.
        path: PNG file for a plot of the first batch, cropped and augmented; without it, there is no plot.
        name: name of the recipe, for the title of the plot.
        workdir: the run directory, in which nothing is written. A run that it holds would continue, with the settings
            that were derived when it began.

    Raises:
        UserError: for anything that would keep the run from starting.
    """
    started = start_run(config, workdir)
    config = started.config
    newest = None
    if workdir is not None and is_chief(config.runtime):  # other workers may not have the directory
        check_startable(user_path(workdir), config)
        newest = checkpoint.latest(user_path(workdir) / CHECKPOINTS)
    trainer = Trainer(config, started.source, started.strategy, newest)
    facts = _facts(trainer)
    if trainer.resume():
        facts["resumes from"] = f"step {trainer.state.step:,}"
    if path is None:
        return Plan(facts)
    title = f"{name}: first batch" if name else "first batch"
    return Plan(facts, plot_batch(user_path(path), config, trainer.source, step=0, count=_PLOTTED, title=title))


def _facts(trainer: Trainer) -> dict[str, str]:
    config, source, strategy, length = trainer.config, trainer.source, trainer.strategy, trainer.length
    data, optimizer = config.data, config.optimizer
    over = source.train.num_examples - length.steps_per_epoch * data.batch_size
    unused = f"{counted(over, 'example')} of each epoch {'is' if over == 1 else 'are'} unused"
    if over < 0:
        unused = f"the last of an epoch has {counted(-over, 'example')} of the next pass"
    policy, reason = runtime.choose_precision(config.runtime.precision)
    replicas = strategy.num_replicas_in_sync
    # The cost of a network of variable input size is undefined.
    sized = create_network(config, num_classes=len(source.class_names), fixed_size=True)
    return {
        "network": f"{config.model.name}, {counted(trainer.model.count_params(), 'parameter')}, "
        f"{count_multiply_adds(sized) / 1e9:.3g} billion multiply-adds at {trainer.preprocess.size_text}",
        "data": f"{source.name}: {source.describe_splits()}, {counted(len(source.class_names), 'class')}",
        "classes": source.describe_classes(),
        "steps": f"{length.total_steps:,} of {data.batch_size}: {counted(config.train.epochs, 'epoch')} of "
        f"{length.steps_per_epoch:,}; {unused}",
        "learning rate": f"{optimizer.name}, {config.peak_learning_rate:.4g} at its peak, {optimizer.schedule}",
        "runs on": f"{counted(replicas, 'replica')} of "
        f"{counted(data.batch_size // replicas, trainer.preprocess.noun)} "
        f"(runtime.strategy={config.runtime.strategy})",
        "precision": f"{policy} ({reason})",
        "memory": _memory(trainer, sized),
    } | ({"warnings": "; ".join(trainer.warnings)} if trainer.warnings else {})


def _memory(trainer: Trainer, sized: keras.Model) -> str:
    """Return an estimate of the memory of a step, and the memory of the GPU."""
    estimate = str(trainer.estimate_memory(sized))
    if found := devices.memory_of_accelerator():
        name, available = found
        estimate += f"; {name} has {megabytes(available)}"
    return estimate
