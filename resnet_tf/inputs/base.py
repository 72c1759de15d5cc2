"""Base class of input types: all code that differs between images, signals and custom types."""

import abc
import dataclasses
import importlib
import inspect
import math
import os
import runpy
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import tensorflow as tf

from resnet_tf.config import AugmentConfig, Config, DataConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.ranges import LARGEST, MAX_VALUES, SMALLEST, Range, check_integer, check_number, shorten
from resnet_tf.core.text import counted
from resnet_tf.core.validation import find_mismatch

# Maps the (height, width) of an example, int32 [2], to the offset and size of a crop window, both int32 [2].
ChooseWindow = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


# Values that the arithmetic of `normalize` can subtract and divide by in float32.
_MEANS, _STDS = Range(minimum=-LARGEST, maximum=LARGEST), Range(minimum=SMALLEST, maximum=LARGEST)


class UnreadableError(ValueError):
    """Error for an encoded example that cannot be decoded; the message is the reason."""


@dataclass(frozen=True)
class ServingInput:
    """Input format of an exported model.

    Attributes:
        tensor_type: argument name, dtype and shape of a batch.
        to_input: function from a batch of this type to the model input.
    """

    tensor_type: tf.TensorSpec
    to_input: Callable[[tf.Tensor], tf.Tensor]

    @property
    def name(self) -> str:
        """Name of the argument of the signature."""
        return self.tensor_type.name

    @property
    def dtype(self) -> tf.DType:
        """Dtype of a batch."""
        return self.tensor_type.dtype


@dataclass(frozen=True, kw_only=True)
class Preprocess(abc.ABC):
    """Preprocessing from an example to the network's input.

    It is stored with checkpoints, exports and converted weights.

    An example is one element of a data source: an encoded image, pixels, or samples. Each path from an example to the
    network has methods: training (`to_batch_element`, augmentation, `from_batch`), evaluation (`to_input`), and serving
    (`serving_inputs`). All paths normalize as `normalize` does, so that an example gives the same logits
    everywhere.

    `ImagePreprocess`, `SignalPreprocess` and `BandsPreprocess` are subclasses; docs/architecture.md describes how to
    add an input type.

    Attributes:
        channels: number of channels of the network's input, at least 1.
        mean: subtracted from each channel; a single value applies to all channels.
        std: divisor of each centered channel; a single value applies to all channels.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    # Name in stored files and in `data.input_type`, set by `register_input_type`.
    type_name: ClassVar[str]
    # Name of the module, or absolute path of the recipe, that registered the type; see `find_origin`.
    origin: ClassVar[str]
    # Singular and plural, for messages. The plural is also the argument name of serving signatures.
    noun: ClassVar[str]
    plural: ClassVar[str]
    # Suffixes of files that hold one example, in lower case, and first bytes of such files.
    file_suffixes: ClassVar[tuple[str, ...]]
    file_signatures: ClassVar[tuple[bytes, ...]] = ()
    # Dtype of training batches in the input pipeline.
    batch_dtype: ClassVar[tf.DType]
    # Keys of the `augment` group that apply, and keys of other groups that do not apply.
    supported_augmentations: ClassVar[frozenset[str]] = frozenset({"mixup", "mix_probability", "repeats"})
    unsupported_settings: ClassVar[tuple[str, ...]] = (
        *("train.defaults", "train.start_size", "train.end_size"),
        "loss.teacher",
    )
    # True if the examples of a data set have any size, and are resized to that of the network's input.
    is_resized: ClassVar[bool] = False
    # True if the common corruptions of images are defined for the examples, and if `audit` can examine them.
    supports_corruptions: ClassVar[bool] = False
    supports_audit: ClassVar[bool] = False
    # Keys without effect: recipes may have them, but setting one on the command line is an error.
    unused_settings: ClassVar[tuple[str, ...]] = ()
    # For model cards: name of a file, axes before the channel axis, value range, origins of examples, and limitations.
    example_file: ClassVar[str]
    axes: ClassVar[str]
    value_range: ClassVar[str]
    origins: ClassVar[str]
    limits: ClassVar[tuple[str, ...]] = ()
    # Name of `original_size`; empty if the examples of a data set have one size.
    size_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_integer("channels", self.channels, minimum=1, maximum=MAX_VALUES)
        for name, valid in (("mean", _MEANS), ("std", _STDS)):
            values = _as_numbers(name, getattr(self, name), valid)
            if len(values) not in (1, self.channels):
                raise UserError(f"{name}={values} must have one value, or one for each of {self.channels} channels")
            object.__setattr__(self, name, values * (1 if len(values) == self.channels else self.channels))

    def check_number_of_values(self) -> None:
        """Check that one example is not larger than TensorFlow's kernels can index.

        Raises:
            UserError: if `input_shape` has more values.
        """
        count = math.prod(self.input_shape)
        if count > MAX_VALUES:
            raise UserError(
                f"an example of shape {self.input_shape} has {counted(count, 'value')}; "
                f"at most {MAX_VALUES} are possible"
            )

    # From configurations and files.

    @classmethod
    @abc.abstractmethod
    def from_config(cls, data: DataConfig, weights: "Preprocess | None" = None) -> Self:
        """Create the preprocessing for the `data` group of a configuration.

        Args:
            data: settings; empty `mean` and `std` and automatic values are taken from `weights`.
            weights: preprocessing of the initial weights; without it, unset values have the defaults of the class.

        Raises:
            UserError: if the default statistics have another number of channels.
        """

    @classmethod
    @abc.abstractmethod
    def shape_from_config(cls, data: DataConfig) -> tuple[int, ...]:
        """Return the `input_shape` for the `data` group of a configuration."""

    @classmethod
    def from_input_shape(cls, shape: tuple[int | None, ...]) -> Self | None:
        """Return the default preprocessing for a network's input shape, or None if there is no default."""
        return None

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Check that all changed settings apply to this input type, and that none set by the user is unused.

        Raises:
            UserError: if a setting does not apply; it states the first one.
        """
        augment = {f"augment.{field.name}" for field in dataclasses.fields(AugmentConfig)}
        supported = {f"augment.{name}" for name in cls.supported_augmentations}
        values, defaults = config.values, Config().values
        for key in (*sorted(augment - supported), *cls.unsupported_settings):
            if values[key] != defaults[key]:
                names = ", ".join(sorted(supported))
                raise UserError(f"{key} does not apply to {cls.plural}, which support {names}")
        for key in cls.unused_settings:
            if key in config.given and values[key] != defaults[key]:
                raise UserError(f"{key}={values[key]} has no effect on {cls.plural}")

    @classmethod
    def from_dict(cls, values: Any) -> "Preprocess":
        """Create a preprocessing of any registered type from the result of `to_dict`, also if read from JSON.

        Raises:
            UserError: if the type is unknown, or if fields are missing, unknown or invalid.
        """
        if not isinstance(values, dict):
            raise UserError(f"expected the fields of a preprocessing as a JSON object, got {values!r}")
        fields = _with_type(values)
        name = fields.pop("type")
        if not isinstance(name, str) or name not in _TYPES:
            raise UserError(
                f"unknown input type {name!r}; registered types: {', '.join(_TYPES)}; import the module of a "
                "custom type first"
            )
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        hints = typing.get_type_hints(_TYPES[name])
        for key in set(plain) & set(hints):
            if mismatch := find_mismatch(plain[key], hints[key], key):
                raise UserError(f"invalid preprocessing of type {name!r}: {mismatch}")
        try:
            return _TYPES[name](**plain)
        except (TypeError, ValueError) as error:
            raise UserError(f"invalid preprocessing of type {name!r}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return `type` and the fields as JSON-serializable values."""
        return {"type": self.type_name, **dataclasses.asdict(self)}

    @property
    def timm_note(self) -> str:
        """Sentence for model cards on a step of `decode` that timm leaves to the caller; empty for none."""
        return ""

    def to_timm(self) -> dict[str, Any] | None:
        """Return the fields of timm's `pretrained_cfg` for this preprocessing; None if timm cannot express it."""
        return None

    @abc.abstractmethod
    def with_size(self, sizes: tuple[int, ...]) -> Self:
        """Return a copy for another input size: (height, width), or (length,)."""

    @classmethod
    def supports_channels(cls, channels: int) -> bool:
        """Return True if the input type has examples of a number of channels."""
        return channels > 0

    def with_channels(self, channels: int) -> Self:
        """Return a copy for another number of channels, with the average statistics for one, else repeated in order.

        Raises:
            UserError: if the input type does not support the number.
        """
        if channels == self.channels:
            return self

        def adapt(values: tuple[float, ...]) -> tuple[float, ...]:
            if channels == 1:
                return (math.fsum(values) / len(values),)
            return tuple(values[channel % len(values)] for channel in range(channels))

        return dataclasses.replace(self, channels=channels, mean=adapt(self.mean), std=adapt(self.std))

    # Shapes.

    @property
    @abc.abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input: (height, width, channels), or (length, channels)."""

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """`input_shape` without the channel axis."""
        return self.input_shape[:-1]

    @property
    def unnormalized_shape(self) -> tuple[int, ...]:
        """Shape of one example before `normalize`: decoded and resized."""
        return self.input_shape

    @property
    @abc.abstractmethod
    def size_text(self) -> str:
        """Input size in words, such as `224 pixels`."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """Description for model cards of the steps before `normalize`, or of the examples: complete sentences."""

    @property
    def normalization(self) -> str:
        """Description of `normalize` for model cards, complete sentences."""
        return f"Subtract {_exact(self.mean)} from the channels, and divide by {_exact(self.std)}."

    # From an example to the network's input, in graph operations.

    @abc.abstractmethod
    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Decode one example in its original size.

        Raises:
            tf.errors.InvalidArgumentError: if the example cannot be read.
        """

    def original_size(self, example: tf.Tensor) -> tf.Tensor:
        """Return the size of an example of `decode` before it is resized, int64 scalar, if it has a `size_name`."""
        raise NotImplementedError(f"{self.plural} of a data set have one size")

    @abc.abstractmethod
    def to_unnormalized(self, example: tf.Tensor) -> tf.Tensor:
        """Decode and resize one example: float32 of `unnormalized_shape`."""

    def to_input(self, example: tf.Tensor) -> tf.Tensor:
        """Return the network's input for one example, float32 of `input_shape`."""
        return self.normalize(self.to_unnormalized(example))

    @abc.abstractmethod
    def to_batch_element(self, example: tf.Tensor) -> tf.Tensor:
        """Decode and resize one example for augmentation: `batch_dtype` of `input_shape`; see `from_batch`."""

    def crop_to_batch_element(self, example: tf.Tensor, choose: ChooseWindow, *, antialias: bool) -> tf.Tensor:
        """Decode and resize a crop of one example, for `augment.random_resized_crop`; see `to_batch_element`.

        Args:
            example: as for `decode`.
            choose: maps the (height, width) of the example to offset and size of the crop.
            antialias: widen the kernel when the crop is reduced.
        """
        raise UserError(f"augment.random_resized_crop does not apply to {self.plural}")

    @abc.abstractmethod
    def from_batch(self, batch: tf.Tensor) -> tf.Tensor:
        """Normalize a training batch of `to_batch_element`: float32 [B, *input_shape]."""

    @abc.abstractmethod
    def to_batch_dtype(self, values: tf.Tensor) -> tf.Tensor:
        """Round float32 values in the value range of a training batch to `batch_dtype`."""

    @property
    def fill_value(self) -> tf.Tensor:
        """Fill of erased areas: mean of each channel in a training batch, `batch_dtype` [C]."""
        return self.to_batch_dtype(tf.constant(self.mean))

    def normalize(self, unnormalized: tf.Tensor) -> tf.Tensor:
        """Normalize unnormalized examples, [..., *unnormalized_shape], to the network's input, float32."""
        return self._standardize(tf.convert_to_tensor(unnormalized))

    def denormalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Invert `normalize` for a batch of the network's input, float32."""
        return inputs * self.std + self.mean

    def _standardize(self, values: tf.Tensor) -> tf.Tensor:
        """Subtract the mean of each channel, then divide by its standard deviation."""
        if values.shape.rank != 4 or None in values.shape[1:]:
            return (values - tf.constant(self.mean)) / tf.constant(self.std)
        # Merge width and channels: TensorFlow is several times slower if the innermost dimension has size 3.
        _, height, width, channels = values.shape
        rows = tf.reshape(values, [-1, height, width * channels])
        rows = (rows - tf.tile(tf.constant(self.mean), [width])) / tf.tile(tf.constant(self.std), [width])
        return tf.reshape(rows, [-1, height, width, channels])

    # Files and arrays of examples.

    @classmethod
    def is_example(cls, head: bytes) -> bool:
        """Return True if a file that begins with `head`, its first 32 bytes, holds an example."""
        return head.startswith(cls.file_signatures)

    @abc.abstractmethod
    def explain_unreadable(self, example: tf.Tensor, *, is_unreadable: bool = False) -> str:
        """Return the reason why an example, or the bytes of a file, cannot be read; empty if it can.

        Args:
            example: as for `decode`.
            is_unreadable: the example is known to be unreadable, so that it need not be decoded to find out.
        """

    @abc.abstractmethod
    def encode(self, example: Any) -> bytes:
        """Encode an example in memory, from a data source or a user, as the bytes of a file.

        Raises:
            UserError: if the input type does not support the type, dtype or shape of the example.
        """

    @abc.abstractmethod
    def decode_batch(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Decode the bytes of files to float32 [B, *unnormalized_shape].

        Raises:
            UnreadableError: or tf.errors.InvalidArgumentError, if one of them cannot be read.
        """

    @abc.abstractmethod
    def to_request(self, encoded: Sequence[bytes]) -> tf.Tensor:
        """Return the bytes of files as a batch in the first format of `serving_inputs`."""

    @abc.abstractmethod
    def check_unnormalized(self, values: np.ndarray) -> np.ndarray:
        """Return a batch of unnormalized examples as float32 [B, *unnormalized_shape].

        Raises:
            UserError: if shape, dtype or value range differ.
        """

    @classmethod
    def check_source(cls, source: str) -> None:
        """Check that a `data.source` can hold examples of this type; by default, only archives can.

        Raises:
            UserError: if it cannot.
        """
        if not source.endswith(".npz"):
            raise UserError(f"{cls.plural} come from an .npz archive; data.source is {source!r}")

    @classmethod
    @abc.abstractmethod
    def check_archive(cls, array: np.ndarray, name: str, data: DataConfig) -> np.ndarray:
        """Return an array of an archive as examples, [N, ...].

        Raises:
            UserError: if shape or dtype do not match `data`; it states `name`.
        """

    @classmethod
    @abc.abstractmethod
    def random_examples(cls, data: DataConfig, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return random examples of the size in `data`, in the format of `check_archive`, [count, ...]."""

    @abc.abstractmethod
    def plot(self, example: np.ndarray) -> np.ndarray:
        """Plot a training example or an unnormalized example as an image, uint8 [H, W, 1 or 3]."""

    # Serving.

    def serving_inputs(self) -> tuple[ServingInput, ...]:
        """Return the input formats of an exported model; the first is the one of `serving_default`."""
        return (self.unnormalized_input,)

    @property
    def unnormalized_input(self) -> ServingInput:
        """Input format without decoding: float32 [B, *unnormalized_shape], argument name `plural`."""
        tensor_type = tf.TensorSpec([None, *self.unnormalized_shape], tf.float32, name=self.plural)
        return ServingInput(tensor_type, self.normalize)

    @abc.abstractmethod
    def random_requests(self, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Return a random batch of `count` examples for each of `serving_inputs`: argument name -> batch."""


_TYPES: dict[str, type[Preprocess]] = {}
_RECIPE = "<run_path>"  # name of the module of a recipe, which `load_config` runs by its path
_Type = TypeVar("_Type", bound=type[Preprocess])


def register_input_type(name: str) -> Callable[[_Type], _Type]:
    """Return a class decorator that registers a subclass of `Preprocess` as an input type.

    Args:
        name: name of the input type in stored files and in `data.input_type`.

    Raises:
        ValueError: if another class is registered under the name.
    """

    def register(input_type: _Type) -> _Type:
        known = _TYPES.get(name, input_type)
        if (known.__module__, known.__qualname__) != (input_type.__module__, input_type.__qualname__):
            raise ValueError(f"input type {name!r} is already registered for {known.__module__}.{known.__qualname__}")
        input_type.type_name, module = name, input_type.__module__
        input_type.origin = os.path.abspath(inspect.getfile(input_type)) if module == _RECIPE else module
        _TYPES[name] = input_type
        return input_type

    return register


def find_origin(input_type: type[Preprocess]) -> str:
    """Return the text by which `import_origin` registers an input type in a new process.

    It comes from the process that has the type, never from an export, which must not name code to run.

    Raises:
        UserError: for a type of the program itself, which no other process can import.
    """
    if input_type.origin == "__main__":
        raise UserError(
            f"input type {input_type.type_name!r} is defined in the program itself; define it in a module, which other "
            "processes can import"
        )
    return input_type.origin


def import_origin(origin: str) -> None:
    """Register an input type by the result of `find_origin` in another process."""
    if os.path.isabs(origin):
        runpy.run_path(origin)
    else:
        importlib.import_module(origin)


def input_type(data: DataConfig) -> type[Preprocess]:
    """Return the class that is registered for `data.input_type`.

    Raises:
        UserError: if the name is unknown.
    """
    name = data.input_type
    if name == "auto":
        name = "signal" if data.length else "image"
    if name not in _TYPES:
        raise UserError(f"unknown data.input_type {name!r}; did you mean {closest(name, _TYPES)}?")
    return _TYPES[name]


def create_preprocess(data: DataConfig, weights: Preprocess | None = None) -> Preprocess:
    """Create the preprocessing for the `data` group of a configuration.

    Args:
        data: settings; empty `mean` and `std` and a `channel_order` of `auto` are taken from `weights`.
        weights: preprocessing of the initial weights; without it, unset values have the defaults of the input type.

    Raises:
        UserError: if the input type is unknown, or if the default statistics have another number of channels.
    """
    return input_type(data).from_config(data, weights)


def default_preprocess(input_shape: tuple[int | None, ...]) -> Preprocess | None:
    """Return the default preprocessing for a network's input shape, or None if there is no default.

    Args:
        input_shape: (height, width, channels) or (length, channels).
    """
    found = (each.from_input_shape(input_shape) for each in _TYPES.values())
    return next((each for each in found if each is not None), None)


def resolve_statistics(data: DataConfig, default: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation from `data`; empty ones are taken from `default`.

    Raises:
        UserError: if their lengths do not match `data.channels`.
    """
    mean, std = data.mean or default.mean, data.std or default.std
    if {len(mean), len(std)} - {1, data.channels}:
        raise UserError(
            f"data.channels={data.channels} takes data.mean and data.std of its own: the default has {default.channels}"
        )
    return mean, std


def _exact(values: tuple[float, ...]) -> str:
    """Return numbers in parentheses with the fewest digits that give the same float32.

    >>> _exact((0.485, 1 / 255))
    '(0.485, 0.003921569)'
    """
    return f"({', '.join(str(np.float32(value)) for value in values)})"


def _as_numbers(name: str, values: Any, valid: Range) -> tuple[float, ...]:
    """Return the numbers of a tuple, list or array as floats, all within a range."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, tuple | list):
        raise UserError(f"{name} takes a tuple of numbers, such as (0.5,), got {shorten(values)}")
    for each in values:
        check_number(name, each, valid)
    return tuple(float(each) for each in values)


def _with_type(values: dict[str, Any]) -> dict[str, Any]:
    """Return stored fields with their `type`.

    Files of earlier versions have no type: a single size stood for a signal.
    """
    size = values.get("size")
    if "type" in values:
        return dict(values)
    if isinstance(size, (list, tuple)) and len(size) == 1:
        kept: dict[str, Any] = {name: values[name] for name in ("channels", "mean", "std") if name in values}
        return {"type": "signal", "length": size[0], **kept}
    return {"type": "image", **values}
