"""Measurements for `train.minutes`: facts about data and weights, and the rates of candidate networks."""

import dataclasses
import gc
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from resnet_tf.config import Config, override
from resnet_tf.config.effects import describe_ineffective
from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted
from resnet_tf.data.pipeline import fits_in_memory
from resnet_tf.data.sources import Source
from resnet_tf.inputs import create_preprocess, input_type
from resnet_tf.model.weights.download import cached_path
from resnet_tf.model.weights.published import find_pretrained
from resnet_tf.model.weights.published_table import PRETRAINED
from resnet_tf.training import planner, runtime
from resnet_tf.training.cluster import Cluster, describe_workers
from resnet_tf.training.default_settings import batch_group, explicit_settings, with_smaller_batch
from resnet_tf.training.image_size import SMALL, median_size, trained_size
from resnet_tf.training.planner import Candidate, Facts, Weights
from resnet_tf.training.trainer import Trainer

logger = logging.getLogger(__name__)

# Networks whose cached weights are considered, the best first.
_PRETRAINED = ("resnet50", "resnet34", "resnet18", "resnet56", "resnet20")
_MEASURE_SECONDS = 3.0
_MEASURE_BATCHES = 16  # distinct batches of a measurement
_COLOR_SAMPLE = 16  # images that are decoded to find out whether they have colors
# Export, verification in a new process, and report take as long as 1.2 imports and 3.3 compilations (digits, ResNet-18
# and ResNet-50 on two cores: 6, 10 and 17 s), beside the evaluations; half as much again is reserved for them, and so
# many seconds at most, also for a run that continues and has compiled nothing yet.
_FINISH_IMPORTS, _FINISH_COMPILATIONS, _FINISH_SECONDS = 2.0, 5.0, 60.0
_FINISH_EVALUATIONS = 4  # of the validation split: one of training, and those of report and verification, in float32
_LEAST_FRACTION = 0.2  # of the minutes that training has, however long everything else takes


@dataclass(frozen=True)
class Rate:
    """Measured speed of a network.

    Attributes:
        images_per_second: of training, input included.
        compile_seconds: duration of the first step beyond that of another one.
    """

    images_per_second: float
    compile_seconds: float


class Deadline:
    """End of the time of a run, `train.minutes` after its start.

    Args:
        minutes: 0 for none.
        start: `time.monotonic()` at the start.
    """

    def __init__(self, minutes: float, start: float | None = None):
        self._start = time.monotonic() if start is None else start
        self._seconds = 60 * minutes
        self._import_seconds = time.process_time()  # most of what a process computes before it trains
        self._finish_seconds = _FINISH_SECONDS
        self._evaluations = float(_FINISH_EVALUATIONS)

    @property
    def is_set(self) -> bool:
        """True if the run has a limit."""
        return self._seconds > 0

    def reserve(self, compile_seconds: float) -> None:
        """Reserve as much time for export, verification and report as the machine needs.

        Args:
            compile_seconds: duration of the compilation of a training step.
        """
        seconds = _FINISH_IMPORTS * self._import_seconds + _FINISH_COMPILATIONS * compile_seconds
        self._finish_seconds = min(seconds, _FINISH_SECONDS)

    def include_test(self, source: Source) -> None:
        """Reserve time for the evaluation of the test split, too."""
        if source.test:
            self._evaluations = _FINISH_EVALUATIONS + source.test.num_examples / source.validation.num_examples

    def left(self, evaluation_seconds: float) -> float:
        """Return the seconds left for training, if export, verification and report are to be ready in time.

        Args:
            evaluation_seconds: duration of an evaluation of the validation split.
        """
        finishing = min(self._finish_seconds, self._seconds / 2) + self._evaluations * evaluation_seconds
        return self._start + self._seconds - finishing - time.monotonic()


def fit_into_minutes(config: Config, source: Source, strategy: tf.distribute.Strategy, deadline: Deadline) -> Config:
    """Return the configuration with the settings that `train.minutes` chooses; each is logged with its reason.

    Args:
        config: see `load_config`.
        source: its data.
        strategy: distribution strategy.
        deadline: end of the run.

    Raises:
        UserError: if the data are no ordinary images, or as `planner.check_optimizer`.
    """
    if not input_type(config.data).is_resized:
        plural = input_type(config.data).plural
        raise UserError(
            f"train.minutes={config.train.minutes:g} chooses settings for images, and the data are {plural}"
        )
    facts = _collect(config, source, strategy)
    planner.check_optimizer(facts)
    cluster = Cluster(strategy)
    rates: dict[Candidate, float] = {}

    def measure(candidate: Candidate) -> Rate:
        measured = _measure(config, source, strategy, planner.trial_settings(facts, candidate))
        rate = Rate(*cluster.from_chief([measured.images_per_second, measured.compile_seconds]))
        rates[candidate] = rate.images_per_second
        text = "measured %s at %d pixels: %s images/s in training"
        logger.info(text, candidate.network, candidate.size, f"{rate.images_per_second:,.0f}")
        return rate

    def seconds_left(*measured: Rate) -> float:
        """Return the seconds for training a network that is as fast as the slowest of these."""
        compiling = max(rate.compile_seconds for rate in measured)
        deadline.reserve(compiling)
        slowest = min(rate.images_per_second for rate in measured)
        (left,) = cluster.from_chief([deadline.left(facts.evaluated / slowest)])
        return max(left - compiling, 60 * config.train.minutes * _LEAST_FRACTION)

    seconds = seconds_left(*map(measure, planner.candidates(facts)))
    chosen, _ = planner.select(facts, rates, seconds)
    if chosen not in rates:  # reduced images take more time for each pixel
        seconds = seconds_left(measure(chosen))
    choices = planner.choose(facts, rates, seconds)
    for line in planner.describe(choices, config.train.minutes):
        logger.info("%s", line)
    planned = override(config, {choice.key: choice.value for choice in choices})
    _warn_of_ineffective(planned, config.given)
    return planned


def _warn_of_ineffective(planned: Config, given: Iterable[str]) -> None:
    """Warn of keys that were set, not to their default, and that the plan leaves without effect."""
    values, defaults = planned.values, Config().values
    changed = sorted(key for key in given if values[key] != defaults[key])
    for text in describe_ineffective(override(planned, {"train.minutes": 0.0}), changed):
        logger.warning("train.minutes=%g: %s", planned.train.minutes, text)


def _collect(config: Config, source: Source, strategy: tf.distribute.Strategy) -> Facts:
    if named := config.model.weights:
        weights: tuple[Weights, ...] = (Weights(config.model.name, named, trained_size(config)),)
    else:
        weights = _agree_on_weights(Cluster(strategy))
    facts = Facts(
        examples=source.train.num_examples,
        evaluated=source.validation.num_examples,
        median=median_size(source),
        is_color=_is_color(config, source),
        minutes=config.train.minutes,
        weights=weights,
        on_accelerator=runtime.is_on_accelerator(strategy),
        replicas=strategy.num_replicas_in_sync,
        group=batch_group(config),
        given=explicit_settings(config),
    )
    counts = f"{counted(facts.examples, 'training example')}, {counted(len(source.class_names), 'class')}"
    color = "color" if facts.is_color else "gray"
    logger.info("train.minutes=%g: %s, %s images of %d pixels", facts.minutes, counts, color, facts.median)
    _log_missing_weights(facts)
    return facts


def _log_missing_weights(facts: Facts) -> None:
    """Log the settings that download pretrained weights for images of this size, if there are none at hand."""
    network, data = ("resnet20", "cifar10") if facts.median <= SMALL else ("resnet18", "imagenet")
    name = facts.given.get("model.name", network)
    if "model.weights" not in facts.given and not planner.fitting_weights(facts) and find_pretrained(name, data):
        text = "no weights for images of this size in the cache; model.name=%s model.weights=%s downloads some"
        logger.info(text, name, data)


def _agree_on_weights(cluster: Cluster) -> tuple[Weights, ...]:
    """Return the published weights in the chief's cache that all workers have."""
    own = json.dumps([dataclasses.astuple(each) for each in _weights_at_hand()])
    found = tuple(Weights(*fields) for fields in json.loads(cluster.text_from_chief(own)))
    common = []
    for each in found:
        if lacking := cluster.where(not cached_path(PRETRAINED[each.network][each.name]).is_file()):
            without = describe_workers(lacking)
            logger.warning(
                "weights %s of %s are not in the cache of %s, and are left out", each.name, each.network, without
            )
        else:
            common.append(each)
    return tuple(common)


def _weights_at_hand() -> tuple[Weights, ...]:
    """Return the published weights in the cache, at most one for each network."""
    found = []
    for network in _PRETRAINED:
        cached = ((name, row) for name, row in PRETRAINED.get(network, {}).items() if cached_path(row).is_file())
        found += [Weights(network, name, min(row.inputs[0].size)) for name, row in list(cached)[:1]]
    return tuple(found)


def _is_color(config: Config, source: Source) -> bool:
    """Return True if any of the sampled images has a pixel of unequal channels; unreadable images are left out."""
    preprocess, split = create_preprocess(override(config, {"data.image_size": 32}).data), source.train

    def spread(position: tf.Tensor, example: tf.Tensor) -> tf.Tensor:
        image = preprocess.to_unnormalized(example)
        return tf.reduce_max(tf.reduce_max(image, axis=-1) - tf.reduce_min(image, axis=-1))

    values = split.map(tf.constant(split.evenly_spaced(_COLOR_SAMPLE)), spread).ignore_errors(log_warning=False)
    return max(values.as_numpy_iterator(), default=0.0) > 0.1


def _measure(config: Config, source: Source, strategy: tf.distribute.Strategy, settings: Mapping[str, Any]) -> Rate:
    """Train a network for some seconds on the real input, and discard it."""
    explicit = explicit_settings(config)
    chosen = override(config, {key: value for key, value in settings.items() if key not in explicit} | _full(config))
    chosen = with_smaller_batch(chosen, source.train, strategy.num_replicas_in_sync)
    trainer = Trainer(chosen, _part(chosen, source), strategy)
    batches = trainer.batches()
    first = _seconds(trainer, batches, 1)
    count, total = 0, 0.0
    while trainer.state.step + 4 < trainer.length.total_steps:
        (is_short,) = trainer.cluster.from_chief([float(total < _MEASURE_SECONDS)])  # by one clock for all workers
        if not is_short:
            break
        total += _seconds(trainer, batches, 4)
        count += 4
        trainer.state.step += 4
    step = total / count if count else first
    size = trainer.config.data.batch_size
    del trainer, batches
    gc.collect()
    return Rate(size / step, max(first - step, 0.0))


def _full(config: Config) -> dict[str, Any]:
    """Return settings that train all layers at the full image size, in the slowest steps of a run."""
    finetune = config.train.finetune
    return {"train.finetune": "full" if finetune == "head_then_all" else finetune, "train.start_size": 0}


def _part(config: Config, source: Source) -> Source:
    """Return the part of the data that a measurement needs, where training would first load all into memory."""
    count = _MEASURE_BATCHES * config.data.batch_size
    if source.train.num_examples <= count or not fits_in_memory(config, source.train, create_preprocess(config.data)):
        return source
    return dataclasses.replace(source, train=source.train.select(source.train.evenly_spaced(count)))


def _seconds(trainer: Trainer, batches: Any, steps: int) -> float:
    start = time.perf_counter()
    trainer.take(batches, steps)
    return time.perf_counter() - start
