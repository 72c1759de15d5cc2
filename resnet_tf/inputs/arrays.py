"""Preprocessing of fixed-shape float arrays from `.npz` archives and `.npy` files, which need no resizing."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from resnet_tf.config import AUTO_SIZE, Config, DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.numpy_files import read_npy
from resnet_tf.inputs.base import Preprocess, UnreadableError
from resnet_tf.inputs.pil import is_pil_image


@dataclass(frozen=True, kw_only=True)
class ArrayPreprocess(Preprocess):
    """Preprocessing of fixed-shape float arrays, which are only normalized."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    file_suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    file_signatures: ClassVar[tuple[bytes, ...]] = (b"\x93NUMPY",)
    batch_dtype: ClassVar[tf.DType] = tf.float32
    # Key of the `data` group that sets the size, for error messages.
    size_key: ClassVar[str]

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Check that the settings apply to arrays, which are not resized.

        Raises:
            UserError: for `data.image_size=auto`, the size to which images are resized.
        """
        super().check_config(config)
        if cls.size_key == "data.image_size" and config.data.image_size == AUTO_SIZE:
            raise UserError(
                f"data.image_size=auto chooses the size to which images are resized; {cls.plural} are not resized: set "
                "data.image_size to their height and width"
            )

    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Return the example unchanged, float32 of `input_shape`."""
        return tf.ensure_shape(example, self.input_shape)

    def to_unnormalized(self, example: tf.Tensor) -> tf.Tensor:
        """Return the example unchanged, float32 of `input_shape`."""
        return self.decode(example)

    def to_batch_element(self, example: tf.Tensor) -> tf.Tensor:
        """Return the example unchanged, float32 of `input_shape`."""
        return self.decode(example)

    def from_batch(self, batch: tf.Tensor) -> tf.Tensor:
        """Normalize a training batch of `to_batch_element`: float32 [B, *input_shape]."""
        return self._standardize(batch)

    def to_batch_dtype(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values unchanged, float32."""
        return values

    def explain_unreadable(self, example: tf.Tensor, *, is_unreadable: bool = False) -> str:
        """Return the reason why an `.npy` file cannot be read; empty if it can, and for arrays of an opened archive."""
        if example.dtype != tf.string:
            return ""
        try:
            self._decode_file(example.numpy())
        except UnreadableError as error:
            return str(error)
        return ""

    def encode(self, example: Any) -> bytes:
        """Return a float array as the bytes of an `.npy` file; bytes are returned unchanged.

        Raises:
            UserError: if the example is not a float array of `input_shape`.
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
        """Decode the bytes of `.npy` files to float32 [B, *input_shape].

        Raises:
            UnreadableError: if one of them cannot be read.
        """
        return np.stack([self._decode_file(each) for each in encoded])

    def to_request(self, encoded: Sequence[bytes]) -> tf.Tensor:
        """Decode the bytes of `.npy` files to a serving request, float32 [B, *input_shape]."""
        return tf.constant(self.decode_batch(encoded))

    def _decode_file(self, encoded: bytes) -> np.ndarray:
        """Decode an `.npy` file to float32 of `input_shape`; the channel axis may be absent for one channel."""
        try:
            array = read_npy(encoded)
        except (ValueError, EOFError) as error:
            raise UnreadableError(f"it is no .npy file of numbers ({error})") from error
        expected = self.input_shape
        array = array[..., np.newaxis] if array.ndim == len(expected) - 1 else array
        if array.dtype.kind != "f" or array.shape != expected:
            raise UnreadableError(f"it is {array.dtype} {list(array.shape)}, not floating-point {list(expected)}")
        values = _to_float32(array)
        if not np.isfinite(values).all():
            raise UnreadableError("it holds numbers that are not finite in float32")
        return values

    def check_unnormalized(self, values: np.ndarray) -> np.ndarray:
        """Return a batch as float32 [B, *input_shape].

        Raises:
            UserError: if the shape differs, or if values are not finite floating-point numbers.
        """
        check_shape(values, self.input_shape, self.plural)
        batch = _to_float32(values) if np.issubdtype(values.dtype, np.floating) else None
        if batch is None or not np.isfinite(batch).all():
            raise UserError(f"{self.plural} of {values.dtype}; expected floating-point numbers, finite in float32")
        return batch

    @classmethod
    def check_archive(cls, array: np.ndarray, name: str, data: DataConfig) -> np.ndarray:
        """Return an array of an archive as float32 [N, *input_shape]; the channel axis may be absent for one channel.

        Raises:
            UserError: if the shape differs, or if values are not finite floating-point numbers; it states `name`.
        """
        expected = cls.shape_from_config(data)
        examples = array[..., np.newaxis] if array.ndim == len(expected) else array
        if examples.dtype.kind != "f" or examples.shape[1:] != expected:
            size = getattr(data, cls.size_key.removeprefix("data."))
            raise UserError(
                f"{name} is {array.dtype} {list(array.shape)}; {cls.size_key}={size} and data.channels={data.channels} "
                f"take floating-point numbers [N, {', '.join(map(str, expected))}]"
            )
        values = _to_float32(examples)
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if not finite.all():
            first = int(np.argmin(finite))
            raise UserError(
                f"{name} holds numbers that are not finite in float32; {cls.noun} {first} is the first with one"
            )
        return values

    @classmethod
    def random_examples(cls, data: DataConfig, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return normal noise, float32 [count, *input_shape]."""
        return generator.normal(size=(count, *cls.shape_from_config(data))).astype(np.float32)

    def random_requests(self, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Return normal noise, float32 [count, *input_shape]."""
        return {self.plural: generator.normal(size=(count, *self.input_shape)).astype(np.float32)}


def _to_float32(array: np.ndarray) -> np.ndarray:
    """Convert floating-point numbers to float32, in which those beyond its range are infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def check_shape(values: np.ndarray, expected: tuple[int, ...], plural: str) -> None:
    """Check the shape of the examples in a batch.

    Raises:
        UserError: if the shape differs; it states both shapes.
    """
    if values.shape[1:] != expected:
        raise UserError(f"{plural} of shape {values.shape}; expected [B, {', '.join(map(str, expected))}]")


def as_array(example: Any, expected: str) -> np.ndarray:
    """Convert an array-like example to a NumPy array.

    Raises:
        UserError: if the example is not array-like; it states the `expected` types.
    """
    if is_pil_image(example) or not hasattr(example, "__array__"):
        raise UserError(f"an object of type {type(example).__name__}; expected {expected}")
    return np.asarray(example)


def describe_array(array: np.ndarray) -> str:
    """Describe dtype and shape of an array for error messages."""
    return f"an array of {array.dtype} {list(array.shape)}"
