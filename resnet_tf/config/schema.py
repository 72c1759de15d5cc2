"""Configuration schema: one frozen dataclass for each group of keys.

Only inputs are stored; derived values are properties, so that an override never leaves a stale value behind.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from resnet_tf.core import ranges
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import MAX_BATCH, MAX_CLASSES, MAX_PIXELS, MAX_SEED, MAX_SIZE, MAX_VALUES, Range
from resnet_tf.core.selection import AUTO, SELECTION_METRICS
from resnet_tf.core.text import counted

# Largest values of counts without a limit of their own: far beyond any use, and their products fit into int64.
_MANY = 10**6
_MANY_EXAMPLES = 10**9
_TRACKERS = ("tensorboard", "wandb", "mlflow")
AUTO_SIZE = 0  # `data.image_size=auto`
# Factors and rates: larger ones overflow float32 within a few steps.
_LARGE = 1e4


def _key(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    words: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """Return a dataclass field for a configuration key: its default, its one-line meaning, and its valid values.

    Every key of numbers has a lower bound, `minimum` or `above`, and an upper bound, `maximum` or `below`. Bounds of a
    tuple are those of its elements. `words` stand for numbers of special meaning in overrides and JSON.
    """
    valid = Range(minimum=minimum, maximum=maximum, above=above, below=below)
    return field(default=default, metadata={"meaning": meaning, "choices": choices, "valid": valid, "words": words})


@dataclass(frozen=True)
class ModelConfig:
    """Network and initial weights."""

    name: str = _key("resnet50", "network, one of resnet_tf.list_models()")
    num_classes: int = _key(0, "number of classes; 0: that of the data set", minimum=0, maximum=MAX_CLASSES)
    weights: str = _key(
        "",
        "initial weights: 'imagenet', another name of list_weights(), a file, a hub export, or a repository of the "
        "Hugging Face Hub, hf://user/repo[@revision]; empty: random",
    )
    new_head: bool = _key(
        False, "initialize the classification head at random instead of loading it from model.weights"
    )
    adapt_channels: str = _key(
        "repeat",
        "first convolution of weights for another number of channels than data.channels: repeat (as timm: sum for one "
        "channel, otherwise repeated and scaled), average, or zero (zeros for further channels)",
        choices=("repeat", "average", "zero"),
    )
    stem: str = _key(
        "",
        "first layers: conv7, deep (ResNet-D), small (for small images), or whitening (for small images, with kernels "
        "computed from the training split); empty: the network's own",
    )
    stochastic_depth: float = _key(
        0.0,
        "probability of dropping the last block in training, increasing linearly with depth (Huang et al. 2016); "
        "0: the network's own",
        minimum=0,
        maximum=0.999,
    )
    dropout: float = _key(0.0, "dropout rate of the pooled features; 0: the network's own", minimum=0, maximum=0.999)


@dataclass(frozen=True)
class DataConfig:
    """Data source, splits and preprocessing."""

    source: str = _key(
        "digits",
        "data set: 'digits', a TFDS name or directory, a folder of split/class/*, class/*, Parquet, TFRecord or IDX "
        "files, a table (.csv, .tsv, .parquet), or an .npz archive",
    )
    data_dir: str = _key("", "directory of prepared TFDS data sets; empty: TFDS's default")
    train_split: str = _key("train", "training split, a part such as train[:90%], a sum such as train+val, or all")
    eval_split: str = _key(
        "test",
        "validation split: evaluated during training, and selects the best checkpoint; unless set, that of data with a "
        "validation and a test split is the validation split",
    )
    test_split: str = _key(
        "",
        "test split: evaluated once, after training, on the exported checkpoint; it selects nothing; empty: none; "
        "unless set, that of data with a validation and a test split is the test split",
    )
    eval_fraction: float = _key(
        0.1,
        "fraction of each class of a folder of class/file, or of a table without splits, that forms the validation "
        "split, selected by a hash of the file name",
        above=0,
        below=1,
    )
    image_folder: str = _key("", "folder that the paths of a table are relative to; empty: that of the table")
    image_column: str = _key("", "column of a table with paths or encoded images; empty: found by its name")
    label_column: str = _key(
        "", "column of a table with labels, or several of 0 and 1, such as a,b,c or a:z; empty: found by its name"
    )
    label_separator: str = _key(
        "auto",
        "text between several labels in a cell of a table: |, ;, a comma, space, or any other; none: one label in each "
        "cell; auto: found from the cells",
    )
    split_column: str = _key("", "column of a table with names of splits; empty: found by its name, if there is one")
    group_column: str = _key(
        "", "column of a table with groups, such as patients, that are not divided between training and validation"
    )
    input_type: str = _key(
        "auto",
        "image, signal, bands (float arrays with any number of channels), or another registered type; auto: signal if "
        "data.length is set, otherwise image",
    )
    image_size: int = _key(
        224,
        "height and width of the model input, in pixels; auto: from the sizes of the images, without enlarging them, "
        "and the training size of the weights",
        minimum=AUTO_SIZE,
        maximum=MAX_SIZE,
        words={"auto": AUTO_SIZE},
    )
    channels: int = _key(
        3,
        "channels of the model input: 3 (RGB) or 1 (gray); any number for signals and bands",
        minimum=1,
        maximum=_MANY,
    )
    length: int = _key(
        0,
        "length of a signal in samples, for one-dimensional networks (`*_1d`); 0: the data are images",
        minimum=0,
        maximum=MAX_VALUES,
    )
    mean: tuple[float, ...] = _key(
        (),
        "mean subtracted from pixels in [0, 1] or from samples, one value or one for each channel; empty: that of the "
        "weights, else ImageNet's for images and 0 for signals",
        minimum=-ranges.LARGEST,
        maximum=ranges.LARGEST,
    )
    std: tuple[float, ...] = _key(
        (),
        "standard deviation that divides the result, as data.mean; empty: that of the weights, else ImageNet's for "
        "images and 1 for signals",
        minimum=ranges.SMALLEST,
        maximum=ranges.LARGEST,
    )
    channel_order: str = _key(
        "auto", "order of the color channels; auto: that of the weights", choices=("auto", "rgb", "bgr")
    )
    crop_fraction: float = _key(
        0.875,
        "central crop in evaluation, as a fraction of the size that images are resized to, in (0, 1]",
        above=0,
        maximum=1,
    )
    interpolation: str = _key("bilinear", "interpolation of resizing", choices=("bilinear", "bicubic"))
    antialias: bool = _key(True, "antialias when downscaling in evaluation, as PIL does")
    exif_orientation: bool = _key(False, "rotate and mirror JPEG images by their EXIF orientation")
    max_pixels: int = _key(
        2**26, "largest image, in pixels by its header, that is decoded", minimum=1, maximum=MAX_PIXELS
    )
    max_unreadable_fraction: float = _key(
        0.01, "largest fraction of the training split that may be unreadable before the run fails", minimum=0, maximum=1
    )
    balance: str = _key(
        "none",
        "class sampling: by class counts, by their square roots, or uniform",
        choices=("none", "sqrt", "uniform"),
    )
    long_tail: float = _key(
        1.0,
        "imbalance ratio: subsample the training split to exponentially decreasing class counts, the first this many "
        "times the last (Cui et al. 2019)",
        minimum=1,
        maximum=_MANY_EXAMPLES,
    )
    batch_size: int = _key(
        256,
        "examples in a training step, over all replicas; at most those of the training split",
        minimum=1,
        maximum=MAX_BATCH,
    )
    drop_remainder: str = _key(
        "auto",
        "omit the examples of an epoch beyond its last complete batch; false: the last batch continues with examples "
        "of the next pass; auto: omit at most 1 % of the split",
        choices=("auto", "true", "false"),
    )
    service: str = _key(
        "", "address of a tf.data service that prepares the batches, such as grpc://host:5050; empty: none"
    )
    memory_limit_mb: int = _key(
        1024,
        "a decoded split of at most this size, in MB, is cached in memory between epochs",
        minimum=0,
        maximum=_MANY_EXAMPLES,
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the training and validation split and, if there is one, of the test split."""
        return (self.train_split, self.eval_split, *([self.test_split] if self.test_split else []))


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training examples."""

    random_resized_crop: bool = _key(False, "train on random crops, resized to the input size (Szegedy et al. 2015)")
    min_crop_area: float = _key(
        0.08, "for random_resized_crop: smallest crop, as a fraction of the image area", above=0, maximum=1
    )
    antialias: bool = _key(False, "for random_resized_crop: antialias when resizing, as PIL does; slower")
    flip: bool = _key(False, "mirror horizontally with probability 1/2")
    alternating_flip: bool = _key(
        False, "mirror horizontally in every other epoch, a random half of the images first (Jordan 2024)"
    )
    pad_crop: int = _key(
        0,
        "padding, in pixels or samples, before a random crop to the input size (He et al. 2015, sec. 4.2)",
        minimum=0,
        maximum=MAX_SIZE,
    )
    shift: float = _key(
        0.0,
        "largest random translation, in pixels, before scale and rotation; torchvision translates after them",
        minimum=0,
        maximum=MAX_SIZE,
    )
    scale: float = _key(0.0, "largest random zoom: a factor in [exp(-scale), exp(scale)]", minimum=0, maximum=4)
    rotation: float = _key(0.0, "largest random rotation, in degrees", minimum=0, maximum=180)
    policy: str = _key(
        "none",
        "augmentation policy, with torchvision's operations",
        choices=("none", "randaugment", "trivialaugment", "autoaugment_imagenet", "autoaugment_cifar10"),
    )
    policy_layers: int = _key(2, "for randaugment: operations applied to an image", minimum=1, maximum=4)
    policy_magnitude: int = _key(
        9,
        "for randaugment: magnitude of the operations, up to 30 as in torchvision; magnitudes up to 10, as in timm and "
        "TensorFlow Models, are multiplied by 3",
        minimum=0,
        maximum=30,
    )
    brightness: float = _key(
        0.0, "brightness jitter: a random factor in [1 - brightness, 1 + brightness]", minimum=0, maximum=1
    )
    contrast: float = _key(
        0.0, "contrast jitter: a random factor in [1 - contrast, 1 + contrast]", minimum=0, maximum=1
    )
    saturation: float = _key(
        0.0, "saturation jitter: a random factor in [1 - saturation, 1 + saturation]", minimum=0, maximum=1
    )
    hue: float = _key(
        0.0, "hue jitter: a random rotation in [-hue, hue], as a fraction of the color circle", minimum=0, maximum=0.5
    )
    erasing: float = _key(0.0, "probability of erasing a random rectangle (Zhong et al. 2017)", minimum=0, maximum=1)
    cutout: int = _key(
        0,
        "height and width of an erased random square, in pixels (DeVries and Taylor 2017)",
        minimum=0,
        maximum=MAX_SIZE,
    )
    mixup: float = _key(
        0.0,
        "blend pairs of examples; alpha of the Beta distribution of the weight (Zhang et al. 2018)",
        minimum=0,
        maximum=_LARGE,
    )
    cutmix: float = _key(
        0.0,
        "paste a box of another image; alpha of the Beta distribution of its area (Yun et al. 2019)",
        minimum=0,
        maximum=_LARGE,
    )
    mix_probability: float = _key(1.0, "fraction of the examples changed by mixup or cutmix", minimum=0, maximum=1)
    repeats: int = _key(
        1,
        "copies of an example in a batch, each augmented separately (Hoffer et al. 2020)",
        minimum=1,
        maximum=MAX_BATCH,
    )


@dataclass(frozen=True)
class TrainConfig:
    """Length of training, fine-tuning, evaluation and checkpoints."""

    defaults: str = _key(
        "none",
        "derive settings left at their defaults from the number and the size of the training images: BiT-HyperRule "
        "(Kolesnikov et al. 2020), or fine-tuning on photos",
        choices=("none", "bit", "photos"),
    )
    epochs: int = _key(90, "passes over the training split", minimum=1, maximum=_MANY)
    minutes: float = _key(
        0.0,
        "minutes that the run takes, export and report included; network, image size, epochs, batch, schedule and "
        "augmentation that are not set are chosen for this time when the run begins; 0: any",
        minimum=0,
        maximum=_MANY,
    )
    extend: bool = _key(
        False, "continue a run with more train.epochs than it was started with, by the schedule of the longer run"
    )
    accumulate: int = _key(
        1,
        "micro-batches that gradients of a step are accumulated over, one after another, to save memory",
        minimum=1,
        maximum=MAX_BATCH,
    )
    ema: float = _key(
        0.0,
        "decay of an exponential moving average of the weights, which is evaluated and exported; 0: none",
        minimum=0,
        below=1,
    )
    finetune: str = _key(
        "full",
        "trainable part: full network, linear probe (head only, BatchNorm frozen), or head first and then all layers",
        choices=("full", "probe", "head_then_all"),
    )
    head_epochs: int = _key(1, "for head_then_all: epochs that train the head only", minimum=0, maximum=_MANY)
    freeze_batch_norm: bool = _key(False, "keep the parameters and the statistics of BatchNorm fixed")
    start_size: int = _key(
        0,
        "image size of the first epoch, in pixels, increasing to train.end_size in steps of 32; 0: constant",
        minimum=0,
        maximum=MAX_SIZE,
    )
    end_size: int = _key(
        0,
        "image size of the last epochs, in pixels; 0: data.image_size, that of evaluation",
        minimum=0,
        maximum=MAX_SIZE,
    )
    full_size_from: float = _key(
        0.75, "fraction of the epochs after which images have train.end_size", minimum=0, maximum=1
    )
    eval_every: int = _key(
        1,
        "epochs between evaluations on the validation split, each with a checkpoint; the last is included",
        minimum=1,
        maximum=_MANY,
    )
    metric: str = _key(
        AUTO,
        "metric of the validation split that selects the best checkpoint, and that train.patience watches; auto: "
        "accuracy, or mean_average_precision of multi-label data",
        choices=(AUTO, *SELECTION_METRICS),
    )
    patience: int = _key(
        0,
        "evaluations without a better train.metric that end the run (early stopping); 0: none",
        minimum=0,
        maximum=_MANY,
    )
    keep_checkpoints: int = _key(2, "number of newest checkpoints kept, besides the best one", minimum=1, maximum=_MANY)
    checkpoint_steps: int = _key(
        0, "steps between checkpoints within an epoch; 0: none within an epoch", minimum=0, maximum=_MANY_EXAMPLES
    )
    max_nonfinite_steps: int = _key(
        10,
        "consecutive steps with a non-finite loss or gradient that return the run to its checkpoint",
        minimum=1,
        maximum=_MANY,
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, learning-rate schedule and weight decay."""

    name: str = _key("sgd", "optimizer: sgd, adamw, lamb, lars, muon, or another of keras.optimizers by name")
    base_lr: float = _key(
        0.1,
        "peak learning rate at a batch of 256; scaled linearly with data.batch_size (Goyal et al. 2017)",
        above=0,
        maximum=_LARGE,
    )
    schedule: str = _key(
        "cosine",
        "learning-rate schedule after warmup",
        choices=("cosine", "linear", "polynomial", "step", "one_cycle", "constant"),
    )
    warmup_epochs: float = _key(
        5.0,
        "epochs of linear warmup before the schedule; not for one_cycle; unless it is set, at most a tenth of "
        "train.epochs",
        minimum=0,
        maximum=_MANY,
    )
    end_lr_fraction: float = _key(0.0, "final learning rate, as a fraction of the peak", minimum=0, maximum=1)
    decay_epochs: tuple[float, ...] = _key(
        (30.0, 60.0, 80.0), "for step: epochs after which the learning rate decays", above=0, maximum=_MANY
    )
    decay_factor: float = _key(0.1, "for step: factor on the learning rate at each decay", above=0, maximum=1)
    power: float = _key(2.0, "for polynomial: exponent", minimum=0, maximum=100)
    rise_fraction: float = _key(
        0.3, "for one_cycle: fraction of the steps in which the learning rate rises", above=0, below=1
    )
    momentum: float = _key(0.9, "momentum of sgd, lars and muon", minimum=0, below=1)
    nesterov: bool = _key(False, "Nesterov momentum, for sgd, lars and muon")
    weight_decay: float = _key(
        1e-4, "weight decay of the kernels: L2 for sgd and lars, decoupled for the others", minimum=0, maximum=_LARGE
    )
    decay_all: bool = _key(False, "apply weight decay to biases and BatchNorm parameters as well")
    layer_decay: float = _key(
        1.0,
        "layer-wise learning-rate decay: each block's rate relative to the next block; the head has the full rate",
        above=0,
        maximum=1,
    )
    clip_norm: float = _key(
        0.0,
        "largest norm of the gradient over all weights; larger ones are scaled down; 0: any",
        minimum=0,
        maximum=ranges.LARGEST,
    )


@dataclass(frozen=True)
class LossConfig:
    """Loss, class weights and distillation."""

    name: str = _key(
        "cross_entropy",
        "training loss: cross-entropy, one sigmoid for each class (Wightman et al. 2021), focal (Lin et al. 2017), or, "
        "for multi-label data, asymmetric (Ridnik et al. 2021)",
        choices=("cross_entropy", "binary", "focal", "asymmetric"),
    )
    teacher: str = _key("", "exported model for knowledge distillation (Hinton et al. 2015); empty: none")
    teacher_weight: float = _key(
        0.5, "weight of the distillation loss against that of the labels", minimum=0, maximum=1
    )
    temperature: float = _key(
        1.0, "temperature of the distillation loss, which divides both logits", minimum=0.01, maximum=1000
    )
    label_smoothing: float = _key(
        0.0, "fraction of the target spread evenly over all classes (Szegedy et al. 2015)", minimum=0, below=1
    )
    target_threshold: float = _key(
        0.0,
        "for binary: proportion of a class in a mixed example above which its target is 1, otherwise 0 (Wightman et "
        "al. 2021); 0: the target is the proportion",
        minimum=0,
        below=1,
    )
    focal_gamma: float = _key(
        2.0, "for focal: exponent of the factor that reduces the loss of easy examples", minimum=0, maximum=100
    )
    positive_gamma: float = _key(
        0.0, "for asymmetric: exponent as focal_gamma, for positive labels", minimum=0, maximum=100
    )
    negative_gamma: float = _key(
        4.0, "for asymmetric: exponent as focal_gamma, for negative labels", minimum=0, maximum=100
    )
    margin: float = _key(
        0.05, "for asymmetric: probability below which a negative label has no loss", minimum=0, maximum=0.9
    )
    class_weights: str = _key(
        "none",
        "class weights: inverse class counts, or inverse effective numbers (Cui et al. 2019); for "
        "multi-label data, of positive against negative labels",
        choices=("none", "inverse", "effective"),
    )
    effective_beta: float = _key(0.999, "for class_weights=effective: beta", minimum=0, below=1)
    logit_adjustment: float = _key(
        0.0,
        "tau: adds tau times the log of the class frequencies to training logits (Menon et al. 2021)",
        minimum=0,
        maximum=100,
    )


@dataclass(frozen=True)
class RuntimeConfig:
    """Devices, precision and determinism."""

    strategy: str = _key(
        "auto",
        "distribution strategy; multiworker reads TF_CONFIG",
        choices=("auto", "single", "mirrored", "multiworker", "tpu"),
    )
    tpu: str = _key("local", "for strategy=tpu: name or address of the TPU, or local")
    wait_seconds: int = _key(
        600,
        "longest wait for other processes: workers of TF_CONFIG, a TPU, or batches of a tf.data service",
        minimum=1,
        maximum=_MANY,
    )
    sync_batch_norm: bool = _key(False, "BatchNorm statistics over all replicas instead of each replica's own; slower")
    precision: str = _key(
        "auto",
        "dtype policy; auto: mixed_bfloat16 where the hardware computes in it, mixed_float16 on GPUs that lack it",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    xla: str = _key(
        "auto",
        "compile training steps with XLA; auto: on GPUs and TPUs, not on CPUs",
        choices=("auto", "true", "false"),
    )
    seed: int = _key(0, "random seed of initialization, shuffling and augmentation", minimum=0, maximum=MAX_SEED)
    deterministic: bool = _key(
        False, "use deterministic kernels only, for bitwise reproducible runs; slower on some GPUs"
    )
    steps_per_loop: int = _key(
        50, "largest number of steps in one call of the compiled training function", minimum=1, maximum=_MANY
    )
    logical_devices: int = _key(
        1, "logical devices that the CPU is split into, to try several replicas", minimum=1, maximum=256
    )
    tracker: str = _key(
        "tensorboard",
        "experiment trackers that get the metrics of every epoch, separated by commas: tensorboard, wandb, mlflow; "
        "empty: none",
    )
    profile: str = _key("", "range of steps to profile for TensorBoard, such as 100:110; empty: none")

    @property
    def trackers(self) -> tuple[str, ...]:
        """Return the names in `tracker`."""
        return tuple(name.strip() for name in self.tracker.split(",") if name.strip())


@dataclass(frozen=True)
class ExportConfig:
    """Export and its verification."""

    checkpoint: str = _key(
        "latest",
        "checkpoint that is evaluated at the end and exported: the newest, or the best by train.metric",
        choices=("latest", "best"),
    )
    top_k: int = _key(5, "classes in a prediction of the exported model", minimum=1, maximum=MAX_CLASSES)
    verify_examples: int = _key(
        10_000,
        "validation examples on which a fresh process compares the export with the model",
        minimum=1,
        maximum=_MANY_EXAMPLES,
    )
    drift_examples: int = _key(
        256,
        "validation examples on which the drift of a lower precision is measured",
        minimum=1,
        maximum=_MANY_EXAMPLES,
    )
    calibration_examples: int = _key(
        128, "training examples that calibrate int8 quantization", minimum=1, maximum=_MANY_EXAMPLES
    )
    max_logit_drift: float = _key(
        0.25,
        "largest drift of an export: root mean square of the logit differences over the logits' standard deviation",
        minimum=0,
        maximum=_LARGE,
    )
    max_accuracy_drop: float = _key(
        0.01, "largest drop in top-1 accuracy of an export, in [0, 1]", minimum=0, maximum=1
    )
    calibrate: bool = _key(
        True, "fit a temperature on the evaluation split, by which exports divide logits to get probabilities"
    )
    target_precision: float = _key(
        0.0,
        "precision of the predictions above a threshold on their score, in [0, 1]; others are marked unsure; 0: none",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True)
class Config:
    """Configuration of a run; `--set group.key=value` overrides a key.

    Each group is a frozen dataclass. `given` holds the dotted keys that an override or a JSON file set, also to their
    default value; `train.defaults` changes none of them. It is neither compared nor stored.
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
        """Return the peak learning rate: `optimizer.base_lr`, per 256 examples, scaled linearly (Goyal et al. 2017)."""
        return self.optimizer.base_lr * self.data.batch_size / 256

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the values as group -> key -> value."""
        return {group.name: dataclasses.asdict(getattr(self, group.name)) for group in _groups()}

    @property
    def values(self) -> dict[str, Any]:
        """Return the values as dotted key -> value."""
        return flatten(self.to_dict())

    @property
    def explicit(self) -> dict[str, Any]:
        """Return the settings that the user gave, and those of the recipe that differ from the defaults."""
        defaults = Config().values
        return {key: value for key, value in self.values.items() if key in self.given or value != defaults[key]}

    def to_json(self) -> str:
        """Return the configuration as indented JSON, which `load_config` reads back."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def flatten(groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Flatten {"data": {"source": x}} to {"data.source": x}."""
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def iterate_keys() -> Iterator[tuple[str, dataclasses.Field]]:
    """Yield every dotted key with its dataclass field, in the order of definition."""
    for group in _groups():
        for item in dataclasses.fields(group.default):  # type: ignore[arg-type]
            yield f"{group.name}.{item.name}", item


def _groups() -> list[dataclasses.Field]:
    return [item for item in dataclasses.fields(Config) if dataclasses.is_dataclass(item.default)]


def _check_values(config: Config) -> None:
    for dotted, item in iterate_keys():
        group, name = dotted.split(".")
        _check_value(dotted, item, getattr(getattr(config, group), name))
    _check_data(config.data)
    _check_train(config.train)
    for name in config.runtime.trackers:
        if name not in _TRACKERS:
            raise UserError(f"runtime.tracker takes {', '.join(_TRACKERS)}, separated by commas; got {name!r}")
    if list(config.optimizer.decay_epochs) != sorted(set(config.optimizer.decay_epochs)):
        raise UserError(f"optimizer.decay_epochs must increase, got {_join(config.optimizer.decay_epochs)}")
    if config.augment.flip and config.augment.alternating_flip:
        raise UserError("augment.flip and augment.alternating_flip exclude each other; set one of them")


def _check_train(train: TrainConfig) -> None:
    if train.finetune == "head_then_all" and train.head_epochs >= train.epochs:
        raise UserError(
            f"train.head_epochs={train.head_epochs} of train.epochs={train.epochs} leaves no epoch for the other "
            "layers of train.finetune=head_then_all; set more epochs, or train.finetune=probe to train the head only"
        )


def _check_value(dotted: str, item: dataclasses.Field, value: Any) -> None:
    """Check type, choice and range of the value of a key; the command line and JSON are converted before."""
    choices, valid = item.metadata["choices"], item.metadata["valid"]
    expected = type(item.default)
    if expected is tuple:
        if not isinstance(value, tuple):
            raise UserError(f"{dotted} takes a tuple of numbers, got {ranges.shorten(value)}")
        for each in value:
            ranges.check_number(dotted, each, valid)
    elif expected is float:
        ranges.check_number(dotted, value, valid)
    elif expected is int:
        ranges.check_integer(dotted, value, minimum=valid.minimum, maximum=valid.maximum)
    elif not isinstance(value, expected):
        words = {bool: "True or False", str: "text"}[expected]
        raise UserError(f"{dotted} takes {words}, got {ranges.shorten(value)}")
    if choices and value not in choices:
        raise UserError(f"{dotted} takes one of {', '.join(choices)}; got {value!r}")


def _join(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))


def _check_data(data: DataConfig) -> None:
    if not data.source.strip():
        raise UserError(
            "data.source is empty; expected a data set, such as data.source=photos/; data.source=./ is this directory"
        )
    for name in ("train_split", "eval_split"):
        if data.test_split and data.test_split == getattr(data, name):
            raise UserError(
                f"data.test_split={data.test_split!r} is data.{name} as well; a test split takes part in no decision: "
                "name another split, or slices such as train[90%:] for data.eval_split"
            )
    for name in ("mean", "std"):
        values = getattr(data, name)
        if len(values) not in (0, 1, data.channels):
            raise UserError(
                f"data.{name} has {counted(len(values), 'value')} for data.channels={data.channels}; "
                "give one value, or one for each channel"
            )
    if data.length * data.channels > MAX_VALUES:
        raise UserError(
            f"data.length={data.length} times data.channels={data.channels} must be at most {MAX_VALUES} values"
        )
