"""Warnings about settings that are valid individually but conflict with each other."""

from collections.abc import Callable

import keras

from resnet_tf.config import Config
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.core.text import counted
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import Source, overlaps
from resnet_tf.training.learning_rate import learning_rate

_RARE = 10  # ratio of class counts above which a class is reported as rare
_NEAR_PEAK = 0.9  # fraction of the peak learning rate that counts as reached


def describe_conflicts(config: Config, source: Source, model: keras.Model, length: TrainingLength) -> list[str]:
    """Return a sentence for each conflict between the settings, the data, the network and the length of a run."""
    checks: tuple[Callable[[], str], ...] = (
        lambda: _describe_rare_classes(config, source),
        lambda: _describe_repeated_corrections(config, source),
        lambda: _describe_warmup(config),
        lambda: _describe_peak(config, length),
        lambda: _describe_patience(config),
        lambda: _describe_decays(config),
        lambda: _describe_profile(config, length),
        lambda: _describe_missing_batch_norm(config, model),
    )
    return [text for check in checks if (text := check())]


def describe_splits(config: Config, source: Source) -> list[str]:
    """Return a sentence for each defect of the splits: few examples, missing classes, examples in common."""
    chooses = config.export.checkpoint == "best"
    return [
        *overlaps.describe_evaluation(source.validation, source.class_names, chooses=chooses),
        *(overlaps.describe_evaluation(source.test, source.class_names) if source.test else []),
        *overlaps.describe_overlaps(source),
    ]


def _describe_rare_classes(config: Config, source: Source) -> str:
    """Return a warning if the class counts are imbalanced and no setting compensates for that."""
    counts = source.class_counts
    fewest, most = int(counts.argmin()), int(counts.argmax())
    balanced = _corrections(config) or config.loss.name in ("focal", "asymmetric")
    if balanced or counts[most] < _RARE * max(counts[fewest], 1):
        return ""
    remedy = "loss.logit_adjustment=1 or data.balance=uniform compensates"
    if source.targets is MULTI_LABEL:
        remedy = "loss.class_weights=inverse or loss.name=asymmetric compensates"
    return (
        f"class {source.class_names[fewest]!r} has {counted(counts[fewest], 'training example')} where "
        f"{source.class_names[most]!r} has {counts[most]:,}: rare classes are recalled less often; "
        f"{remedy} for that (docs/training.md)"
    )


def _describe_repeated_corrections(config: Config, source: Source) -> str:
    """Return a warning if several settings compensate for the same imbalance of the class counts."""
    corrections, counts = _corrections(config), source.class_counts
    if len(corrections) < 2 or counts.min() == counts.max():
        return ""
    return (
        f"{' and '.join(corrections)} compensate for the same imbalance of the classes: their effects add up, so that "
        "rare classes are predicted too often; one of them is enough"
    )


def _corrections(config: Config) -> list[str]:
    """Return the settings that compensate for imbalanced class counts."""
    data, loss = config.data, config.loss
    return [
        *([f"data.balance={data.balance}"] if data.balance != "none" else []),
        *([f"loss.class_weights={loss.class_weights}"] if loss.class_weights != "none" else []),
        *([f"loss.logit_adjustment={loss.logit_adjustment:g}"] if loss.logit_adjustment else []),
    ]


def _describe_warmup(config: Config) -> str:
    """Return a warning if the warmup leaves little or nothing of the run to the schedule."""
    warmup, epochs = config.optimizer.warmup_epochs, config.train.epochs
    if config.optimizer.schedule == "one_cycle" or warmup <= epochs / 2:
        return ""
    part, end = "most", "is decreased only after that"
    if warmup >= epochs:
        part, end = "all", "ends at its peak"
    return (
        f"optimizer.warmup_epochs={warmup:g} takes {part} of train.epochs={epochs}: the learning rate {end}; "
        f"optimizer.warmup_epochs={epochs / 10:g} is usual"
    )


def _describe_peak(config: Config, length: TrainingLength) -> str:
    """Return a warning if a run is too short for its schedule to reach the peak learning rate."""
    rate, peak, total = learning_rate(config, length), config.peak_learning_rate, length.total_steps
    top = config.optimizer.rise_fraction * total
    warmup = config.optimizer.warmup_epochs * length.steps_per_epoch
    steps = {min(max(round(middle) + by, 0), total - 1) for middle in (top, warmup) for by in (-1, 0, 1)}
    reached = max(float(rate(step)) for step in steps)
    if reached >= _NEAR_PEAK * peak:
        return ""
    return (
        f"the learning rate reaches at most {reached:.4g} of its peak, {peak:.4g}, in {counted(total, 'step')} of "
        f"optimizer.schedule={config.optimizer.schedule}; more train.epochs or a smaller data.batch_size helps"
    )


def _describe_patience(config: Config) -> str:
    """Return a warning if early stopping cannot happen, or leaves the best checkpoint behind."""
    train = config.train
    if not train.patience:
        return ""
    evaluations = -(-train.epochs // train.eval_every)
    if train.patience >= evaluations:
        return f"train.patience={train.patience} never ends a run of {counted(evaluations, 'evaluation')}"
    if config.export.checkpoint == "best":
        return ""
    return (
        f"train.patience={train.patience} ends a run that many evaluations after its best one, and "
        f"export.checkpoint={config.export.checkpoint} exports the last; export.checkpoint=best exports the best"
    )


def _describe_decays(config: Config) -> str:
    """Return a warning if the learning rate decays after the end of the run, or within its warmup."""
    settings, epochs = config.optimizer, config.train.epochs
    if settings.schedule != "step":
        return ""
    late = [f"{each:g}" for each in settings.decay_epochs if each >= epochs]
    if late:
        return f"train.epochs={epochs} end before the decays of optimizer.decay_epochs={','.join(late)}"
    early = [f"{each:g}" for each in settings.decay_epochs if each <= min(settings.warmup_epochs, epochs)]
    if early:
        return (
            f"optimizer.decay_epochs={','.join(early)} lie within optimizer.warmup_epochs={settings.warmup_epochs:g}: "
            "the learning rate drops from its peak at the end of the warmup"
        )
    return ""


def _describe_profile(config: Config, length: TrainingLength) -> str:
    """Return a warning if the run ends before the steps that are to be profiled, or within them."""
    first, _, last = config.runtime.profile.partition(":")
    if not (first.isdecimal() and last.isdecimal()) or int(last) <= length.total_steps:
        return ""
    where = "begins" if int(first) >= length.total_steps else "ends"
    return f"runtime.profile={config.runtime.profile} {where} after the last step, {length.total_steps - 1:,}"


def _describe_missing_batch_norm(config: Config, model: keras.Model) -> str:
    """Return a warning if a setting of BatchNorm is set for a network that has none."""
    settings = {
        "train.freeze_batch_norm": config.train.freeze_batch_norm,
        "runtime.sync_batch_norm": config.runtime.sync_batch_norm,
    }
    found = [f"{key}=true" for key, value in settings.items() if value]
    if not found or any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        return ""
    return f"{model.name} has no BatchNorm, so that {' and '.join(found)} changes nothing"
