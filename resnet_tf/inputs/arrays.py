"""Input types whose examples are float arrays of one shape: archives, `.npy` files, nothing to decode or resize."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.inputs.base import Preprocess, UnreadableError
from resnet_tf.inputs.pil import is_pil_image


@dataclass(frozen=True, kw_only=True)
class ArrayPreprocess(Preprocess):
    """Preprocessing of float arrays of one shape, which are normalized and otherwise left as they are."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    file_suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    batch_dtype: ClassVar[tf.DType] = tf.float32
    # The key of the `data` group that gives the size, for messages.
    size_key: ClassVar[str]

    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Return the example as it is, float32 of `input_shape`."""
        return tf.ensure_shape(example, self.input_shape)

    def to_unnormalized(self, example: tf.Tensor) -> tf.Tensor:
        """Return the example as it is, float32 of `input_shape`."""
        return self.decode(example)

    def to_batch_element(self, example: tf.Tensor) -> tf.Tensor:
        """Return the example as it is, float32 of `input_shape`."""
        return self.decode(example)

    def from_batch(self, batch: tf.Tensor) -> tf.Tensor:
        """Return the network's input, float32, for a batch of `to_batch_element`."""
        return self._standardize(batch)

    def to_batch_dtype(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values as they are."""
        return values

    def explain_unreadable(self, example: tf.Tensor) -> str:
        """Return why the content of an `.npy` file cannot be read; archives were checked when they were opened."""
        if example.dtype != tf.string:
            return ""
        try:
            self._decode_file(example.numpy())
        except UnreadableError as error:
            return str(error)
        return ""

    def encode(self, example: Any) -> bytes:
        """Return a float array as the content of an `.npy` file, and the content of a file as it is.

        Raises:
            UserError: for another type or shape.
        """
        if isinstance(example, bytes | bytearray):
            return bytes(example)
        array = as_array(example, "a path, bytes, or an array")
        expected = self.input_shape
        shapes = (expected, expected[:-1]) if expected[-1] == 1 else (expected,)
        if array.dtype.kind != "f" or array.shape not in shapes:
            allowed = " or ".join(str(list(shape)) for shape in shapes)
            raise UserError(f"{describe_array(array)}; expected float32 {allowed}")
        file = io.BytesIO()
        np.lib.format.write_array(file, array, allow_pickle=False)
        return file.getvalue()

    def decode_batch(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Return the contents of `.npy` files as float32 [B, *input_shape].

        Raises:
            UnreadableError: for one that cannot be read.
        """
        return np.stack([self._decode_file(each) for each in encoded])

    def to_request(self, encoded: Sequence[bytes]) -> tf.Tensor:
        """Return the contents of `.npy` files as float32 [B, *input_shape]."""
        return tf.constant(self.decode_batch(encoded))

    def _decode_file(self, encoded: bytes) -> np.ndarray:
        """Return float32 of `input_shape`; a single channel needs no axis in the file."""
        try:
            array = np.lib.format.read_array(io.BytesIO(encoded), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UnreadableError(f"it is no .npy file of numbers ({error})") from error
        expected = self.input_shape
        array = array[..., np.newaxis] if array.ndim == len(expected) - 1 else array
        if array.dtype.kind != "f" or array.shape != expected:
            raise UnreadableError(f"it is {array.dtype} {list(array.shape)}, not floating-point {list(expected)}")
        if not np.isfinite(array).all():
            raise UnreadableError("it holds numbers that are not finite")
        return array.astype(np.float32)

    def check_unnormalized(self, values: np.ndarray) -> np.ndarray:
        """Return float32 [B, *input_shape].

        Raises:
            UserError: for another shape, or values that are not finite floating-point numbers.
        """
        check_shape(values, self.input_shape, self.plural)
        if not (np.issubdtype(values.dtype, np.floating) and np.isfinite(values).all()):
            raise UserError(f"{self.plural} of {values.dtype}; expected finite floating-point numbers")
        return values.astype(np.float32, copy=False)

    @classmethod
    def check_archive(cls, array: np.ndarray, name: str, data: DataConfig) -> np.ndarray:
        """Return float32 [N, *input_shape]; a single channel needs no axis in the archive.

        Raises:
            UserError: by `name`, for another shape, or values that are not finite floating-point numbers.
        """
        expected = cls.shape_from_config(data)
        examples = array[..., np.newaxis] if array.ndim == len(expected) else array
        if examples.dtype.kind != "f" or examples.shape[1:] != expected:
            size = getattr(data, cls.size_key.removeprefix("data."))
            raise UserError(
                f"{name} is {array.dtype} {list(array.shape)}; {cls.size_key}={size} and data.channels={data.channels} "
                f"take floating-point numbers [N, {', '.join(map(str, expected))}]"
            )
        finite = np.isfinite(examples).all(axis=tuple(range(1, examples.ndim)))
        if not finite.all():
            first = int(np.argmin(finite))
            raise UserError(f"{name} holds numbers that are not finite; {cls.noun} {first} is the first with one")
        return examples.astype(np.float32)

    @classmethod
    def random_examples(cls, data: DataConfig, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return normal noise, float32 [count, *input_shape]."""
        return generator.normal(size=(count, *cls.shape_from_config(data))).astype(np.float32)

    def random_requests(self, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Return normal noise, float32 [count, *input_shape]."""
        return {self.plural: generator.normal(size=(count, *self.input_shape)).astype(np.float32)}


def check_shape(values: np.ndarray, expected: tuple[int, ...], plural: str) -> None:
    """Refuse a batch whose examples are not of the expected shape.

    Raises:
        UserError: with both shapes.
    """
    if values.shape[1:] != expected:
        raise UserError(f"{plural} of shape {values.shape}; expected [B, {', '.join(map(str, expected))}]")


def as_array(example: Any, expected: str) -> np.ndarray:
    """Return an example in memory as an array.

    Raises:
        UserError: naming the `expected` types, if it is none.
    """
    if is_pil_image(example) or not hasattr(example, "__array__"):
        raise UserError(f"an object of type {type(example).__name__}; expected {expected}")
    return np.asarray(example)


def describe_array(array: np.ndarray) -> str:
    """Return dtype and shape in words, for error messages."""
    return f"an array of {array.dtype} {list(array.shape)}"


def numbers_text(values: tuple[float, ...]) -> str:
    """Return numbers in parentheses, four digits each."""
    return f"({', '.join(f'{value:.4g}' for value in values)})"
