"""The interface of an input type: everything that differs between images, signals and types to come."""

import abc
import dataclasses
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import tensorflow as tf

from resnet_tf.config import AugmentConfig, Config, DataConfig, flatten
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.validation import find_mismatch

# From the (height, width) of an example, int32 [2], to the offset and the size of a window of it, both int32 [2].
ChooseWindow = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class UnreadableError(ValueError):
    """Reason why an encoded example cannot be decoded."""


@dataclass(frozen=True)
class ServingInput:
    """A form in which an exported model takes its input.

    Attributes:
        tensor_type: dtype and shape of a batch, and the name of the argument of the signature.
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
        """Type of the elements of a batch."""
        return self.tensor_type.dtype


@dataclass(frozen=True, kw_only=True)
class Preprocess(abc.ABC):
    """How examples become the input of a network. Stored with checkpoints, exports and converted weights.

    An example is what a data source yields: an encoded image, pixels, or samples. Every path from there to the network
    is a method: training (`to_batch_element`, augmentation, `from_batch`), evaluation (`to_input`), and serving
    (`serving_inputs`). All of them end in `normalize`, so that an example gives the same logits everywhere.

    `ImagePreprocess` and `SignalPreprocess` implement it; docs/architecture.md describes how to add another.

    Attributes:
        channels: channels of the network's input.
        mean: subtracted from each channel; a single value is for all channels.
        std: divides each channel after that; a single value is for all channels.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    # Name in files and of `data.input_type`, set by `register_input_type`.
    type_name: ClassVar[str]
    # Singular and plural, for messages; the plural also names the argument of serving signatures.
    noun: ClassVar[str]
    plural: ClassVar[str]
    # Suffixes of files with one example, lower case.
    file_suffixes: ClassVar[tuple[str, ...]]
    # Type of training batches on their way to the device.
    batch_dtype: ClassVar[tf.DType]
    # Keys of the `augment` group that apply, and keys of other groups that do not.
    supported_augmentations: ClassVar[frozenset[str]] = frozenset({"mixup", "mix_probability", "repeats"})
    unsupported_settings: ClassVar[tuple[str, ...]] = (
        *("train.defaults", "train.start_size", "train.end_size"),
        "loss.teacher",
    )
    # For model cards: a file, the axes before the channels, the values, where examples come from, and limits.
    example_file: ClassVar[str]
    axes: ClassVar[str]
    value_range: ClassVar[str]
    origins: ClassVar[str]
    limits: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_count("channels", self.channels)
        for name in ("mean", "std"):
            values = tuple(float(each) for each in getattr(self, name))
            if len(values) not in (1, self.channels):
                raise UserError(
                    f"{name}={values} must hold a number for each of {self.channels} channels, or one for all"
                )
            object.__setattr__(self, name, values * (1 if len(values) == self.channels else self.channels))

    # From configurations and files.

    @classmethod
    @abc.abstractmethod
    def from_config(cls, data: DataConfig, weights: "Preprocess | None" = None) -> Self:
        """Return what the `data` group asks for; what it leaves open is that of `weights`, or the default.

        Raises:
            UserError: if what is left open has another number of channels.
        """

    @classmethod
    @abc.abstractmethod
    def shape_from_config(cls, data: DataConfig) -> tuple[int, ...]:
        """Return the `input_shape` that the `data` group asks for."""

    @classmethod
    def from_input_shape(cls, shape: tuple[int | None, ...]) -> Self | None:
        """Return the default preprocessing for a network with this input, or None if it needs to be given."""
        return None

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Refuse settings that do not apply to this input type.

        Raises:
            UserError: naming the first setting.
        """
        augment = {f"augment.{field.name}" for field in dataclasses.fields(AugmentConfig)}
        supported = {f"augment.{name}" for name in cls.supported_augmentations}
        values, defaults = flatten(config.to_dict()), flatten(Config().to_dict())
        for key in (*sorted(augment - supported), *cls.unsupported_settings):
            if values[key] != defaults[key]:
                names = ", ".join(sorted(supported))
                raise UserError(f"{key} does not apply to {cls.plural}, which support {names}")

    @classmethod
    def from_dict(cls, values: Any) -> "Preprocess":
        """Return the preprocessing, of any type, that `to_dict` described, also after a round trip through JSON.

        Raises:
            UserError: for an unknown type, or missing, unknown or invalid fields.
        """
        if not isinstance(values, dict):
            raise UserError(f"a preprocessing is an object of named fields, not {values!r}")
        fields = _with_type(values)
        name = fields.pop("type")
        if name not in _TYPES:
            raise UserError(
                f"unknown input type {name!r}; there are {', '.join(_TYPES)}; the module of another one must be "
                "imported first"
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
        """Return `type` and the fields as plain values, ready for JSON."""
        return {"type": self.type_name, **dataclasses.asdict(self)}

    @abc.abstractmethod
    def with_size(self, sizes: tuple[int, ...]) -> Self:
        """Return the same for another size of the network's input: (height, width), or (length,)."""

    # Shapes.

    @property
    @abc.abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input: (height, width, channels), or (length, channels)."""

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """`input_shape` without channels."""
        return self.input_shape[:-1]

    @property
    def unnormalized_shape(self) -> tuple[int, ...]:
        """Shape of what `normalize` takes."""
        return self.input_shape

    @property
    @abc.abstractmethod
    def size_text(self) -> str:
        """Size of the input in words, such as `224 pixels`."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """A sentence for model cards: from an example to the network's input."""

    # From an example to the network's input, in graph operations.

    @abc.abstractmethod
    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Decode one example to numbers of its own size.

        Raises:
            tf.errors.InvalidArgumentError: for an example that cannot be read.
        """

    @abc.abstractmethod
    def to_unnormalized(self, example: tf.Tensor) -> tf.Tensor:
        """Decode and resize one example: float32 of `unnormalized_shape`."""

    def to_input(self, example: tf.Tensor) -> tf.Tensor:
        """Return the network's input for one example, float32 of `input_shape`."""
        return self.normalize(self.to_unnormalized(example))

    @abc.abstractmethod
    def to_batch_element(self, example: tf.Tensor) -> tf.Tensor:
        """Return one example for training, `batch_dtype` of `input_shape`: augmented next, then see `from_batch`."""

    def crop_to_batch_element(self, example: tf.Tensor, choose: ChooseWindow, *, antialias: bool) -> tf.Tensor:
        """Return a window of one example as `to_batch_element` does, for `augment.random_resized_crop`."""
        raise NotImplementedError(f"{self.plural} have no random crops: augment.random_resized_crop is refused")

    @abc.abstractmethod
    def from_batch(self, batch: tf.Tensor) -> tf.Tensor:
        """Return the network's input, float32, for a batch of `to_batch_element`."""

    @abc.abstractmethod
    def to_batch_dtype(self, values: tf.Tensor) -> tf.Tensor:
        """Convert float32 values in the scale of a training batch to `batch_dtype`."""

    @property
    def fill_value(self) -> tf.Tensor:
        """Mean of each channel in the scale and order of a training batch, `batch_dtype` [C]: fills erased areas."""
        return self.to_batch_dtype(tf.constant(self.mean))

    def normalize(self, unnormalized: tf.Tensor) -> tf.Tensor:
        """Return the network's input, float32, for any number of unnormalized examples."""
        return self._standardize(tf.convert_to_tensor(unnormalized))

    def denormalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Undo `normalize` for a batch of the network's input."""
        return inputs * self.std + self.mean

    def _standardize(self, values: tf.Tensor) -> tf.Tensor:
        """Subtract the mean of each channel and divide by its standard deviation."""
        if values.shape.rank != 4 or None in values.shape[1:]:
            return (values - tf.constant(self.mean)) / tf.constant(self.std)
        # In whole rows: TensorFlow is several times slower where the innermost dimension is of 3 numbers.
        _, height, width, channels = values.shape
        rows = tf.reshape(values, [-1, height, width * channels])
        rows = (rows - tf.tile(tf.constant(self.mean), [width])) / tf.tile(tf.constant(self.std), [width])
        return tf.reshape(rows, [-1, height, width, channels])

    # Files and arrays of examples.

    @abc.abstractmethod
    def explain_unreadable(self, example: tf.Tensor) -> str:
        """Return why an example, or the content of a file, cannot be read; empty if it can."""

    @abc.abstractmethod
    def encode(self, example: Any) -> bytes:
        """Return an example in memory, of a data source or of a user, as the content of a file.

        Raises:
            UserError: for another type or shape than the ones that this input type has in memory.
        """

    @abc.abstractmethod
    def decode_batch(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Return the contents of files as float32 [B, *unnormalized_shape].

        Raises:
            UnreadableError: or tf.errors.InvalidArgumentError, for one that cannot be read.
        """

    @abc.abstractmethod
    def to_request(self, encoded: Sequence[bytes]) -> tf.Tensor:
        """Return the contents of files as a batch of the first of `serving_inputs`."""

    @abc.abstractmethod
    def check_unnormalized(self, values: np.ndarray) -> np.ndarray:
        """Return a batch of unnormalized examples as float32.

        Raises:
            UserError: for another shape, type or range.
        """

    @classmethod
    def check_source(cls, source: str) -> None:
        """Refuse a `data.source` that cannot hold examples of this type: by default, all but archives.

        Raises:
            UserError: for such a source.
        """
        if not source.endswith(".npz"):
            raise UserError(f"{cls.plural} come from an .npz archive; data.source is {source!r}")

    @classmethod
    @abc.abstractmethod
    def check_archive(cls, array: np.ndarray, name: str, data: DataConfig) -> np.ndarray:
        """Return an array of an archive as examples, [N, ...].

        Raises:
            UserError: by `name`, for another shape or type than `data` asks for.
        """

    @classmethod
    @abc.abstractmethod
    def random_examples(cls, data: DataConfig, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return noise of the size that `data` asks for, as `check_archive` would."""

    @abc.abstractmethod
    def plot(self, example: np.ndarray) -> np.ndarray:
        """Return a training example, or an unnormalized one, as an image, uint8 [H, W, 1 or 3]."""

    # Serving.

    def serving_inputs(self) -> tuple[ServingInput, ...]:
        """Return the forms in which an exported model takes its input; the first is that of `serving_default`."""
        return (self.unnormalized_input,)

    @property
    def unnormalized_input(self) -> ServingInput:
        """The form without decoding: float32 [B, *unnormalized_shape], named by `plural`."""
        tensor_type = tf.TensorSpec([None, *self.unnormalized_shape], tf.float32, name=self.plural)
        return ServingInput(tensor_type, self.normalize)

    @abc.abstractmethod
    def random_requests(self, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Return a batch of noise for each of `serving_inputs`, by the name of the argument."""


_TYPES: dict[str, type[Preprocess]] = {}
_Type = TypeVar("_Type", bound=type[Preprocess])


def register_input_type(name: str) -> Callable[[_Type], _Type]:
    """Return a decorator that makes a subclass of `Preprocess` known under `name`, in files and `data.input_type`.

    Raises:
        ValueError: if another class has the name.
    """

    def register(input_type: _Type) -> _Type:
        known = _TYPES.get(name, input_type)
        if (known.__module__, known.__qualname__) != (input_type.__module__, input_type.__qualname__):
            raise ValueError(f"input type {name!r} is {known.__module__}.{known.__qualname__} already")
        input_type.type_name = name
        _TYPES[name] = input_type
        return input_type

    return register


def input_type(data: DataConfig) -> type[Preprocess]:
    """Return the class that `data.input_type` names.

    Raises:
        UserError: for an unknown name.
    """
    name = data.input_type
    if name == "auto":
        name = "signal" if data.length else "image"
    if name not in _TYPES:
        raise UserError(f"unknown data.input_type {name!r}; did you mean {closest(name, _TYPES)}?")
    return _TYPES[name]


def create_preprocess(data: DataConfig, weights: Preprocess | None = None) -> Preprocess:
    """Return the preprocessing that the `data` group of a configuration asks for.

    Args:
        data: its empty `mean` and `std` and its `channel_order` of `auto` are left open.
        weights: the preprocessing of the weights that training starts from, which decides what is left open; without
            it, the default of the input type does.

    Raises:
        UserError: for an unknown input type, or if what is left open has another number of channels.
    """
    return input_type(data).from_config(data, weights)


def default_preprocess(input_shape: tuple[int | None, ...]) -> Preprocess | None:
    """Return the default preprocessing for a network's input, (height, width, channels) or (length, channels).

    None if no input type has a default for it.
    """
    found = (each.from_input_shape(input_shape) for each in _TYPES.values())
    return next((each for each in found if each is not None), None)


def resolve_statistics(data: DataConfig, default: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation that `data` gives; those of `default` where it leaves them open."""
    mean, std = data.mean or default.mean, data.std or default.std
    if {len(mean), len(std)} - {1, data.channels}:
        raise UserError(
            f"data.channels={data.channels} takes data.mean and data.std of its own: the default has {default.channels}"
        )
    return mean, std


def check_count(name: str, value: Any) -> None:
    """Refuse a value that is no positive whole number; `name` is that of its field."""
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name}={value!r} must be a whole number of at least 1")


def _with_type(values: dict[str, Any]) -> dict[str, Any]:
    """Return stored fields with their `type`, which files of earlier versions lack: a single size was a signal's."""
    size = values.get("size")
    if "type" in values:
        return dict(values)
    if isinstance(size, (list, tuple)) and len(size) == 1:
        kept: dict[str, Any] = {name: values[name] for name in ("channels", "mean", "std") if name in values}
        return {"type": "signal", "length": size[0], **kept}
    return {"type": "image", **values}
