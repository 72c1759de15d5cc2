"""Keys that have no effect without another key: setting one on the command line is an error.

Those that do not apply to a type of input are checked by the input type.

Recipes and the `config.json` of a run, which lists every key, may have such keys.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from resnet_tf.config.schema import Config
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path

# (what a key needs, in terms of other keys; whether a configuration has it)
Requirement = tuple[str, Callable[[Config], bool]]

_RANDAUGMENT: Requirement = ("augment.policy=randaugment", lambda config: config.augment.policy == "randaugment")
# `train.minutes` may choose the key that makes another one effective; it warns of keys that have no effect then.
_WEIGHTS: Requirement = ("model.weights", lambda config: config.model.weights != "" or config.train.minutes > 0)
_CROPS: Requirement = (
    "augment.random_resized_crop=true",
    lambda config: config.augment.random_resized_crop or config.train.minutes > 0,
)
_MIXED: Requirement = (
    "augment.mixup or augment.cutmix above 0",
    lambda config: max(config.augment.mixup, config.augment.cutmix) > 0 or config.train.defaults == "bit",
)
_GROWING: Requirement = ("train.start_size", lambda config: config.train.start_size > 0)
_STEPWISE: Requirement = ("optimizer.schedule=step", lambda config: config.optimizer.schedule == "step")
_MOMENTUM: Requirement = (
    "optimizer.name=sgd, lars or muon",
    lambda config: config.optimizer.name.lower() in ("sgd", "lars", "muon"),
)
_TEACHER: Requirement = ("loss.teacher", lambda config: config.loss.teacher != "")
_ASYMMETRIC: Requirement = ("loss.name=asymmetric", lambda config: config.loss.name == "asymmetric")
_CALIBRATED: Requirement = ("export.calibrate=true", lambda config: config.export.calibrate)
_TABLE: Requirement = ("a table as data.source", lambda config: _may_be_table(config.data.source))
_HAS_LENGTH_LEFT: Requirement = (
    "train.epochs of at least as many",
    lambda config: config.optimizer.warmup_epochs <= config.train.epochs or config.train.defaults != "none",
)


def _may_be_table(source: str) -> bool:
    """Return True for the path of a table, or of a folder, which may hold Parquet files."""
    return source.lower().endswith((".csv", ".tsv", ".parquet")) or user_path(source).is_dir()


REQUIREMENTS: Mapping[str, tuple[Requirement, ...]] = {
    "model.new_head": (_WEIGHTS,),
    "model.adapt_channels": (_WEIGHTS,),
    "model.stochastic_depth": (
        ("train.finetune=full or head_then_all", lambda config: config.train.finetune != "probe"),
    ),
    **{
        f"data.{key}": (_TABLE,)
        for key in ("image_folder", "image_column", "label_column", "label_separator", "split_column", "group_column")
    },
    "data.channel_order": (("data.channels=3", lambda config: config.data.channels == 3),),
    "augment.min_crop_area": (_CROPS,),
    "augment.antialias": (_CROPS,),
    "augment.policy_layers": (_RANDAUGMENT,),
    "augment.policy_magnitude": (_RANDAUGMENT,),
    "augment.mix_probability": (_MIXED,),
    "train.head_epochs": (
        (
            "train.finetune=head_then_all",
            lambda config: config.train.finetune == "head_then_all" or config.train.minutes > 0,
        ),
    ),
    "train.full_size_from": (_GROWING,),
    "optimizer.warmup_epochs": (
        ("a schedule other than one_cycle", lambda config: config.optimizer.schedule != "one_cycle"),
        _HAS_LENGTH_LEFT,
    ),
    "optimizer.end_lr_fraction": (
        (
            "optimizer.schedule=cosine, linear or polynomial",
            lambda config: config.optimizer.schedule in ("cosine", "linear", "polynomial"),
        ),
    ),
    "optimizer.decay_epochs": (
        _STEPWISE,
        (
            "train.epochs beyond each of them",
            lambda config: (
                max(config.optimizer.decay_epochs, default=0) < config.train.epochs or config.train.defaults != "none"
            ),
        ),
    ),
    "optimizer.decay_factor": (_STEPWISE,),
    "optimizer.power": (("optimizer.schedule=polynomial", lambda config: config.optimizer.schedule == "polynomial"),),
    "optimizer.rise_fraction": (
        (
            "optimizer.schedule=one_cycle",
            lambda config: config.optimizer.schedule == "one_cycle" or config.train.minutes > 0,
        ),
    ),
    "optimizer.momentum": (_MOMENTUM,),
    "optimizer.nesterov": (_MOMENTUM, ("optimizer.momentum", lambda config: config.optimizer.momentum > 0)),
    "optimizer.decay_all": (("optimizer.weight_decay", lambda config: config.optimizer.weight_decay > 0),),
    "loss.teacher_weight": (_TEACHER,),
    "loss.temperature": (_TEACHER,),
    "loss.target_threshold": (("loss.name=binary", lambda config: config.loss.name == "binary"),),
    "loss.focal_gamma": (("loss.name=focal", lambda config: config.loss.name == "focal"),),
    "loss.positive_gamma": (_ASYMMETRIC,),
    "loss.negative_gamma": (_ASYMMETRIC,),
    "loss.margin": (_ASYMMETRIC,),
    "loss.effective_beta": (("loss.class_weights=effective", lambda config: config.loss.class_weights == "effective"),),
    "export.target_precision": (_CALIBRATED,),
    "runtime.tpu": (("runtime.strategy=tpu", lambda config: config.runtime.strategy == "tpu"),),
}


def check_effects(config: Config, given: Iterable[str]) -> None:
    """Check that keys have an effect. Switching something off, by 0, false or nothing, needs no other key.

    Args:
        config: configuration.
        given: keys that the user set.

    Raises:
        UserError: for the first key without effect; it states the key that would make it effective.
    """
    if description := next(describe_ineffective(config, given), ""):
        raise UserError(description)


def check_data_keys(given: Iterable[str], function: str) -> None:
    """Refuse keys of other groups in the overrides of a function that takes those of the group `data`.

    Raises:
        UserError: naming the first of them.
    """
    if wrong := next((key for key in given if not key.startswith("data.")), ""):
        raise UserError(f"{wrong} has no effect on `{function}`, which takes keys of the group data")


def describe_ineffective(config: Config, given: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each key without effect that is set, see `check_effects`."""
    values = config.values
    for key in given:
        value = values[key]
        for needed, is_met in REQUIREMENTS.get(key, ()) if value else ():
            if not is_met(config):
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                yield f"{key}={shown} has no effect: it needs {needed}"
