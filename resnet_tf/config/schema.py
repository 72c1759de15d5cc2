"""Configuration schema: one frozen dataclass for each group of keys.

Only inputs are stored; derived values are properties, so that an override never leaves a stale value behind.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from resnet_tf.core.errors import UserError


def _key(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A configuration key: its default, its one-line meaning, and what values it takes."""
    limits = {"choices": choices, "minimum": minimum, "maximum": maximum}
    return field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class ModelConfig:
    name: str = _key("resnet50", "network, one of resnet_tf.list_models()")
    num_classes: int = _key(0, "classes; 0 takes the number that the data set has", minimum=0)
    weights: str = _key("", "start from these weights: 'imagenet', another of list_weights(), a file, or a hub export")
    new_head: bool = _key(False, "start with a fresh class head and leave out that of model.weights")
    stem: str = _key("", "how pictures enter: conv7, deep, or small for small pictures; empty is the network's own")
    stochastic_depth: float = _key(
        0.0, "chance to leave out the last block in training, rising linearly to it; 0 is the network's own", minimum=0
    )
    dropout: float = _key(0.0, "share of the pooled features left out in training; 0 is the network's own", minimum=0)


@dataclass(frozen=True)
class DataConfig:
    source: str = _key(
        "digits",
        "'digits', a TFDS name or directory, a folder of split/class/*, class/*, TFRecord or IDX files, or an .npz",
    )
    data_dir: str = _key("", "where TFDS keeps prepared data sets; empty is TFDS's own default")
    train_split: str = _key("train", "split to train on; TFDS slices such as train[:90%] work")
    eval_split: str = _key("test", "split to test on")
    eval_fraction: float = _key(
        0.1, "share of a folder of class/file that is kept for testing, by hash of the name", minimum=0, maximum=1
    )
    image_size: int = _key(224, "height and width of the network's input, in pixels", minimum=1)
    channels: int = _key(3, "channels of the network's input: 3 (RGB) or 1 (grey); of signals, any number", minimum=1)
    length: int = _key(
        0,
        "samples of a signal, for networks of one dimension (`*_1d`); 0 is for pictures of data.image_size",
        minimum=0,
    )
    mean: tuple[float, ...] = _key(
        (),
        "subtracted from pixels in [0, 1] or from samples, one a channel or one for all; empty is the weights' own, or "
        "ImageNet's, or 0 of signals",
    )
    std: tuple[float, ...] = _key((), "divides what is left; empty is the weights' own, or ImageNet's, or 1 of signals")
    channel_order: str = _key("auto", "order of colours; auto is the weights' own", choices=("auto", "rgb", "bgr"))
    crop_fraction: float = _key(0.875, "side of the central crop over the resized shorter side, in testing", minimum=0)
    interpolation: str = _key("bilinear", "how pictures are resized", choices=("bilinear", "bicubic"))
    antialias: bool = _key(True, "test pictures are made smaller with antialiasing, as PIL does")
    exif_orientation: bool = _key(False, "turn a JPEG upright as its EXIF data say")
    max_pixels: int = _key(2**26, "pictures whose header claims more are refused before they are decoded", minimum=1)
    max_unreadable_fraction: float = _key(
        0.01, "share of the training split that may be unreadable; more ends the run", minimum=0, maximum=1
    )
    balance: str = _key(
        "none",
        "how often classes are shown: as they are, by the square root of their counts, or equally",
        choices=("none", "sqrt", "uniform"),
    )
    long_tail: float = _key(
        1.0, "train on an exponentially falling share of each class, the last having 1 / this of the first", minimum=1
    )
    batch_size: int = _key(256, "pictures in a training step, over all replicas", minimum=1)
    service: str = _key("", "dispatcher of a tf.data service that prepares the batches, such as grpc://host:5050")
    memory_limit_mb: int = _key(1024, "a split is kept decoded in memory between epochs if it needs no more", minimum=0)

    @property
    def size_in_words(self) -> str:
        """What the network is made for, such as `224 pixels`."""
        return f"{self.length:,} samples" if self.length else f"{self.image_size} pixels"


@dataclass(frozen=True)
class AugmentConfig:
    random_resized_crop: bool = _key(False, "train on random crops of the picture (Szegedy et al. 2015)")
    min_crop_area: float = _key(0.08, "least share of the area that those crops take", minimum=0, maximum=1)
    antialias: bool = _key(False, "resize those crops with antialiasing, as PIL does; slower")
    flip: bool = _key(False, "mirror left to right with probability 1/2")
    alternating_flip: bool = _key(
        False, "mirror left to right in every other epoch, half of the pictures in the first (Jordan 2024)"
    )
    pad_crop: int = _key(
        0, "pad by this many pixels, or samples, and crop at random (He et al. 2015, sec. 4.2)", minimum=0
    )
    shift: float = _key(0.0, "move by up to this many pixels either way", minimum=0)
    scale: float = _key(0.0, "zoom by a factor of up to exp(this) either way", minimum=0)
    rotation: float = _key(0.0, "turn by up to this many degrees either way", minimum=0)
    policy: str = _key(
        "none",
        "operations of a published policy, as torchvision does them",
        choices=("none", "randaugment", "trivialaugment", "autoaugment_imagenet", "autoaugment_cifar10"),
    )
    policy_layers: int = _key(2, "operations an image, for randaugment", minimum=1, maximum=4)
    policy_magnitude: int = _key(9, "strength of the operations, for randaugment", minimum=0, maximum=30)
    brightness: float = _key(0.0, "change brightness by a factor of up to 1 -+ this", minimum=0, maximum=1)
    contrast: float = _key(0.0, "change contrast by a factor of up to 1 -+ this", minimum=0, maximum=1)
    saturation: float = _key(0.0, "change saturation by a factor of up to 1 -+ this", minimum=0, maximum=1)
    hue: float = _key(0.0, "turn the hue by up to this share of the circle either way", minimum=0, maximum=0.5)
    erasing: float = _key(0.0, "erase a rectangle with this probability (Zhong et al. 2017)", minimum=0, maximum=1)
    cutout: int = _key(0, "erase a square of this many pixels (DeVries and Taylor 2017)", minimum=0)
    mixup: float = _key(0.0, "blend two pictures; alpha of the Beta distribution (Zhang et al. 2018)", minimum=0)
    cutmix: float = _key(0.0, "paste a box of another picture; alpha of its size (Yun et al. 2019)", minimum=0)
    mix_probability: float = _key(1.0, "share of the pictures that mixup or cutmix change", minimum=0, maximum=1)
    repeats: int = _key(1, "times a picture stands in a batch, each augmented anew (Hoffer et al. 2020)", minimum=1)


# What signals (`data.length`) can have of it, and what else they cannot have.
_AUGMENT_SIGNALS = {"pad_crop", "mixup", "mix_probability", "repeats"}
_FOR_PICTURES = {"train": {"defaults", "start_size", "end_size"}, "loss": {"teacher"}}


@dataclass(frozen=True)
class TrainConfig:
    defaults: str = _key(
        "none",
        "fills in what is left at its default from the number and the size of the pictures: the published rule of BiT, "
        "or one for own photos",
        choices=("none", "bit", "photos"),
    )
    epochs: int = _key(90, "passes over the training split", minimum=1)
    accumulate: int = _key(1, "parts that a step's batch is computed in, one after another, to save memory", minimum=1)
    ema: float = _key(
        0.0, "decay of a moving average of the weights, which is then what is tested and exported", minimum=0
    )
    finetune: str = _key(
        "full",
        "what learns: all, the class head on a network as in testing, or first that and then all",
        choices=("full", "probe", "head_then_all"),
    )
    head_epochs: int = _key(1, "for head_then_all: epochs in which only the class head learns", minimum=0)
    freeze_batch_norm: bool = _key(False, "leave BatchNorm's parameters and statistics as they are")
    start_size: int = _key(
        0, "side of the pictures in the first epoch, growing to train.end_size in steps of 32; 0 is that", minimum=0
    )
    end_size: int = _key(0, "side of the pictures trained on last; 0 is data.image_size, that of testing", minimum=0)
    full_size_from: float = _key(0.75, "share of the epochs after which pictures grow no more", minimum=0, maximum=1)
    eval_every: int = _key(1, "epochs from one test and checkpoint to the next; the last is always tested", minimum=1)
    keep_checkpoints: int = _key(2, "newest checkpoints that are kept; the best one stays, too", minimum=1)
    checkpoint_steps: int = _key(0, "steps between checkpoints within an epoch; 0 saves at its end only", minimum=0)
    max_nonfinite_steps: int = _key(
        10,
        "steps in a row without a finite loss and gradient; that many take the run back to its checkpoint",
        minimum=1,
    )


@dataclass(frozen=True)
class OptimizerConfig:
    name: str = _key("sgd", "optimizer: sgd, adamw, lamb, lars, muon, or another of Keras's by name")
    base_lr: float = _key(0.1, "peak learning rate for 256 pictures; scales with the batch (Goyal et al. 2017)")
    schedule: str = _key(
        "cosine",
        "how the learning rate falls after its warmup",
        choices=("cosine", "linear", "polynomial", "step", "one_cycle", "constant"),
    )
    warmup_epochs: float = _key(5.0, "epochs of linear warmup before the schedule; not for one_cycle", minimum=0)
    end_lr_fraction: float = _key(0.0, "learning rate at the end over its peak", minimum=0, maximum=1)
    decay_epochs: tuple[float, ...] = _key((30.0, 60.0, 80.0), "for step: epochs at whose ends the rate falls")
    decay_factor: float = _key(0.1, "for step: what the rate is multiplied by", minimum=0, maximum=1)
    power: float = _key(2.0, "for polynomial: its power", minimum=0)
    rise_fraction: float = _key(0.3, "for one_cycle: share of the run in which the rate rises", minimum=0, maximum=1)
    momentum: float = _key(0.9, "momentum of sgd, lars and muon", minimum=0)
    nesterov: bool = _key(False, "Nesterov's form of momentum, for sgd, lars and muon")
    weight_decay: float = _key(1e-4, "decay of the kernels: L2 for sgd and lars, decoupled for the others", minimum=0)
    decay_all: bool = _key(False, "decay biases and BatchNorm's parameters as well")
    layer_decay: float = _key(
        1.0, "share of the learning rate that each block has of the one after it; the class head has all", minimum=0
    )
    clip_norm: float = _key(0.0, "gradients with a larger norm, over all weights, are scaled down to it", minimum=0)


@dataclass(frozen=True)
class LossConfig:
    name: str = _key(
        "cross_entropy",
        "what is minimised; binary is a sigmoid for each class (Wightman et al. 2021), focal that of Lin et al. 2017",
        choices=("cross_entropy", "binary", "focal"),
    )
    teacher: str = _key("", "exported model to learn from besides the labels (Hinton et al. 2015)")
    teacher_weight: float = _key(0.5, "share of the teacher's part in the loss", minimum=0, maximum=1)
    temperature: float = _key(1.0, "what the logits of both are divided by in the teacher's part", minimum=0)
    label_smoothing: float = _key(0.0, "share of the target spread over all classes", minimum=0, maximum=1)
    focal_gamma: float = _key(2.0, "for focal: how little easy examples count", minimum=0)
    class_weights: str = _key(
        "none",
        "weights of the classes: by the inverse of their counts, or of their effective numbers (Cui et al. 2019)",
        choices=("none", "inverse", "effective"),
    )
    effective_beta: float = _key(0.999, "for effective: beta", minimum=0, maximum=1)
    logit_adjustment: float = _key(
        0.0,
        "times the logarithm of the classes' shares, added to the logits in training (Menon et al. 2021)",
        minimum=0,
    )


@dataclass(frozen=True)
class RuntimeConfig:
    strategy: str = _key(
        "auto",
        "how training is distributed; multiworker reads TF_CONFIG",
        choices=("auto", "single", "mirrored", "multiworker", "tpu"),
    )
    tpu: str = _key("local", "for tpu: its name or address, or local")
    sync_batch_norm: bool = _key(False, "BatchNorm over the pictures of all replicas instead of each its own; slower")
    precision: str = _key(
        "auto",
        "numeric precision; auto picks by capability",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    xla: bool = _key(False, "compile the training step with XLA; on CPUs it is slower")
    seed: int = _key(0, "seed of initialisation, shuffling and augmentation", minimum=0)
    deterministic: bool = _key(False, "only kernels that repeat bitwise; slower on some GPUs")
    steps_per_loop: int = _key(50, "most steps in one call into the graph", minimum=1)
    logical_devices: int = _key(1, "split the CPU into this many devices, to try several replicas", minimum=1)
    profile: str = _key("", "steps to profile for TensorBoard, such as 100:110")


@dataclass(frozen=True)
class ExportConfig:
    checkpoint: str = _key(
        "latest",
        "which one is tested at the end and exported: the newest, or that with the best top-1 on the test split",
        choices=("latest", "best"),
    )
    top_k: int = _key(5, "classes named in an answer of the exported model", minimum=1)
    verify_examples: int = _key(10_000, "test pictures that a fresh process must answer as the model does", minimum=1)
    drift_examples: int = _key(256, "test pictures on which the change by a lower precision is measured", minimum=1)
    calibration_examples: int = _key(128, "training pictures from which int8 takes its ranges", minimum=1)
    max_logit_drift: float = _key(0.25, "refuse an export whose logits change by more of their spread", minimum=0.0)
    max_accuracy_drop: float = _key(0.01, "refuse an export that loses more top-1 accuracy", minimum=0.0)


@dataclass(frozen=True)
class Config:
    """Configuration of a run. Each group is a frozen dataclass; `--set group.key=value` overrides a key.

    `given` holds the dotted keys that an override or a JSON file set, also to their default value; `train.defaults`
    changes none of them. It is neither compared nor stored.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    export: ExportConfig = ExportConfig()
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_values(self)

    @property
    def peak_learning_rate(self) -> float:
        """Linear scaling (Goyal et al. 2017): base_lr is per 256 pictures."""
        return self.optimizer.base_lr * self.data.batch_size / 256

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Group -> key -> value."""
        return {group.name: dataclasses.asdict(getattr(self, group.name)) for group in _groups()}

    def to_json(self) -> str:
        """The whole configuration as indented JSON; `load_config` reads it back."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def iterate_keys() -> Iterator[tuple[str, dataclasses.Field]]:
    """Every dotted key with its dataclass field, in the order of definition."""
    for group in _groups():
        for item in dataclasses.fields(group.default):  # type: ignore[arg-type]
            yield f"{group.name}.{item.name}", item


def _groups() -> list[dataclasses.Field]:
    return [item for item in dataclasses.fields(Config) if dataclasses.is_dataclass(item.default)]


def _check_values(config: Config) -> None:
    for dotted, item in iterate_keys():
        group, name = dotted.split(".")
        value = getattr(getattr(config, group), name)
        choices, minimum, maximum = (item.metadata[name] for name in ("choices", "minimum", "maximum"))
        if choices and value not in choices:
            raise UserError(f"{dotted} takes one of {', '.join(choices)}; got {value!r}")
        if minimum is not None and not value >= minimum:
            raise UserError(f"{dotted} must be at least {minimum}, got {value!r}")
        if maximum is not None and not value <= maximum:
            raise UserError(f"{dotted} must be at most {maximum}, got {value!r}")
    data = config.data
    if data.channels not in (1, 3) and not data.length:
        raise UserError(f"data.channels must be 3 (RGB) or 1 (grey), got {data.channels}")
    for name in ("mean", "std"):
        if len(getattr(data, name)) not in (0, 1, data.channels):
            raise UserError(
                f"data.{name} has {len(getattr(data, name))} values for data.channels={data.channels}; "
                f"give one a channel or one for all"
            )
    train = config.train
    if train.finetune == "head_then_all" and train.head_epochs >= train.epochs:
        raise UserError(
            f"train.head_epochs={train.head_epochs} of train.epochs={train.epochs} leaves no epoch for the other "
            "layers of train.finetune=head_then_all; give more epochs, or train.finetune=probe for the head alone"
        )
    if config.augment.flip and config.augment.alternating_flip:
        raise UserError("augment.flip and augment.alternating_flip exclude each other")
    if data.length:
        _check_settings_of_signals(config)
    if 0 in data.std:
        raise UserError("data.std must not hold a zero")
    if not 0 < data.crop_fraction <= 1:
        raise UserError(f"data.crop_fraction must be above 0 and at most 1, got {data.crop_fraction}")


def _check_settings_of_signals(config: Config) -> None:
    """What would change a picture must be left at its default."""
    groups = {"augment": set(vars(config.augment)) - _AUGMENT_SIGNALS, **_FOR_PICTURES}
    for group, names in groups.items():
        settings = getattr(config, group)
        for name in sorted(names):
            if getattr(settings, name) != getattr(type(settings)(), name):
                takes = ", ".join(f"augment.{each}" for each in sorted(_AUGMENT_SIGNALS))
                raise UserError(f"{group}.{name} is for pictures, and data.length asks for signals; these take {takes}")
