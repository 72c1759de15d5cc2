"""Preprocessing of images: encoded files or pixels of any size are decoded, resized and cropped."""

import dataclasses
import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from resnet_tf.config import AugmentConfig, Config, DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.graphs import without_autograph
from resnet_tf.core.ranges import (
    MAX_PIXELS,
    MAX_SIZE,
    SMALLEST,
    Range,
    check_integer,
    check_number,
    is_integer,
    shorten,
)
from resnet_tf.inputs import headers, pil, pixels
from resnet_tf.inputs.arrays import as_array, check_shape, describe_array
from resnet_tf.inputs.base import (
    ChooseWindow,
    Preprocess,
    ServingInput,
    register_input_type,
    resolve_statistics,
)
from resnet_tf.inputs.decoding import Decoder

# Sizes of the headers of BMP files, which bytes 14 to 18 state.
_BMP_HEADER_SIZES = tuple(struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124))

# Pixels above the resized edge of a crop for timm, so that no rounding error of a quotient reaches the edge below.
_TIMM_MARGIN = 1e-3


@register_input_type("image")
@dataclass(frozen=True, kw_only=True)
class ImagePreprocess(Preprocess):
    """Preprocessing of images: decode, resize, center-crop and normalize.

    >>> preprocess = ImagePreprocess(size=(224, 224))
    >>> preprocess.input_shape
    (224, 224, 3)
    >>> Preprocess.from_dict(preprocess.to_dict()).crop_fraction
    0.875

    Attributes:
        size: (height, width) of the network's input, in pixels.
        channels: 3 for color, 1 for gray.
        crop_fraction: size of the center crop as a fraction of the image after resizing, in (0, 1], along the shorter
            edge for a square crop; 1 keeps an image with the aspect ratio of the crop complete.
        interpolation: `bilinear` or `bicubic`, as in PIL.
        antialias: widen the kernel when an image is reduced, as in PIL and torchvision; without it, resize as
            `tf.image.resize` by default.
        mean: subtracted from pixels in [0, 1]: one value per channel in the order of `channel_order`, or one for all
            channels.
        std: divisor of the centered pixels: one value per channel, or one for all channels.
        channel_order: `rgb`, or `bgr` for networks that were trained with it (keras.applications' ResNet v1).
        exif_orientation: rotate a JPEG upright according to its EXIF orientation, as for photos from cameras. Published
            accuracies on ImageNet ignore it.
        max_pixels: largest number of pixels; an image whose header claims more is rejected before it is decoded.
    """

    size: tuple[int, int]
    channels: int = 3
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channel_order: str = "rgb"
    exif_orientation: bool = False
    max_pixels: int = 2**26

    noun: ClassVar[str] = "image"
    plural: ClassVar[str] = "images"
    file_suffixes: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
    file_signatures: ClassVar[tuple[bytes, ...]] = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8")
    batch_dtype: ClassVar[tf.DType] = tf.uint8  # a quarter of the size of float32
    supported_augmentations: ClassVar[frozenset[str]] = frozenset(
        field.name for field in dataclasses.fields(AugmentConfig)
    )
    unsupported_settings: ClassVar[tuple[str, ...]] = ()
    unused_settings: ClassVar[tuple[str, ...]] = ("data.length",)
    is_resized: ClassVar[bool] = True
    supports_corruptions: ClassVar[bool] = True
    supports_audit: ClassVar[bool] = True
    example_file: ClassVar[str] = "cat.jpg"
    axes: ClassVar[str] = "H, W"
    value_range: ClassVar[str] = "RGB in [0, 1]"
    origins: ClassVar[str] = "cameras or locations"
    size_name: ClassVar[str] = "shorter edge in pixels"
    limits: ClassVar[tuple[str, ...]] = (
        "Pixels must be in [0, 1]: the graph cannot detect values in [0, 255], and returns wrong predictions for them.",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.size, tuple | list) or len(self.size) != 2:
            raise UserError(f"size takes (height, width), such as (224, 224), got {shorten(self.size)}")
        for each in self.size:
            check_integer("size", each, minimum=1, maximum=MAX_SIZE)
        object.__setattr__(self, "size", tuple(self.size))
        if is_integer(self.channels) and self.channels not in (1, 3):
            raise UserError(f"channels must be 3 (color) or 1 (gray), got {self.channels}")
        super().__post_init__()
        check_integer("max_pixels", self.max_pixels, minimum=1, maximum=MAX_PIXELS)
        check_number("crop_fraction", self.crop_fraction, Range(above=0, maximum=1))
        _check_choice("interpolation", self.interpolation, pixels.INTERPOLATIONS)
        _check_choice("channel_order", self.channel_order, ("rgb", "bgr"))
        for name in ("antialias", "exif_orientation"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} takes True or False, got {shorten(getattr(self, name))}")
        self._check_statistics()

    def _check_statistics(self) -> None:
        """Refuse a mean and a standard deviation of pixels in [0, 255], which are the mistake of most users."""
        for name, low in (("mean", 0.0), ("std", SMALLEST)):
            values = getattr(self, name)
            if not all(low <= each <= 1.0 for each in values):
                shown, divided = (",".join(f"{each / by:.4g}" for each in values) for by in (1, 255))
                advice = f"; values of pixels in [0, 255] are divided by 255: {divided}" if min(values) >= low else ""
                raise UserError(f"{name}={shown} is that of no image: pixels are in [0, 1]{advice}")

    # From configurations.

    @classmethod
    def from_config(cls, data: DataConfig, weights: Preprocess | None = None) -> Self:
        """Create the preprocessing for the `data` group; unset values are those of `weights`, or ImageNet's.

        Statistics of three channels are averaged for gray images.
        """
        height, width, channels = cls.shape_from_config(data)
        base = weights if isinstance(weights, ImagePreprocess) else cls(size=(height, width))
        base = base.with_channels(channels) if cls.supports_channels(channels) else base
        mean, std = resolve_statistics(data, base)
        return cls(
            size=(height, width),
            channels=channels,
            crop_fraction=data.crop_fraction,
            interpolation=data.interpolation,
            mean=mean,
            std=std,
            channel_order=base.channel_order if data.channel_order == "auto" else data.channel_order,
            antialias=data.antialias,
            exif_orientation=data.exif_orientation,
            max_pixels=data.max_pixels,
        )

    @classmethod
    def shape_from_config(cls, data: DataConfig) -> tuple[int, ...]:
        """Return (data.image_size, data.image_size, data.channels)."""
        return data.image_size, data.image_size, data.channels

    @classmethod
    def from_input_shape(cls, shape: tuple[int | None, ...]) -> Self | None:
        """Return ImageNet's preprocessing for a 2D network of fixed size with 3 channels."""
        if len(shape) != 3 or shape[0] is None or shape[1] is None or shape[2] != 3:
            return None
        return cls(size=(shape[0], shape[1]))

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Check that the settings apply to images.

        Raises:
            UserError: if `data.channels` is neither 1 nor 3.
        """
        super().check_config(config)
        if config.data.channels not in (1, 3):
            raise UserError(
                f"data.channels must be 3 (RGB) or 1 (gray), got {config.data.channels}; float arrays of any number of "
                "channels take data.input_type=bands"
            )

    @classmethod
    def supports_channels(cls, channels: int) -> bool:
        """Return True for 1 and 3."""
        return channels in (1, 3)

    def with_size(self, sizes: tuple[int, ...]) -> Self:
        """Return a copy for another input size, (height, width)."""
        height, width = sizes
        return dataclasses.replace(self, size=(height, width))

    def with_timm_crop(self, size: tuple[int, int], crop_pct: float) -> Self:
        """Return a copy that resizes and crops as timm with `crop_pct`, which rounds the resized shorter edge down."""
        checked = dataclasses.replace(self, size=size, crop_fraction=crop_pct)
        if size[0] != size[1]:
            return checked  # resized as in timm
        return dataclasses.replace(checked, crop_fraction=min(size) / _timm_resized_edge(size, crop_pct))

    @property
    def timm_note(self) -> str:
        """Sentence for model cards on the EXIF orientation, which timm ignores; empty if the network does, too."""
        remedy = "apply `PIL.ImageOps.exif_transpose` to images before its transforms"
        return f"timm ignores the EXIF orientation: {remedy}." if self.exif_orientation else ""

    def to_timm(self) -> dict[str, Any] | None:
        """Return the fields of timm's `pretrained_cfg` for this preprocessing; None if timm cannot express it.

        timm has neither channels in BGR order nor a reduction without antialiasing. It does not rotate images by their
        EXIF orientation either, which is the task of the caller.
        """
        if self.channel_order == "bgr" or not self.antialias:
            return None
        resized, crop_pct = pixels.resized_edge(self.size, self.crop_fraction), self.crop_fraction
        is_square = self.size[0] == self.size[1]
        if is_square and _timm_resized_edge(self.size, crop_pct) != resized:
            crop_pct = min(self.size) / (resized + _TIMM_MARGIN)
        return {
            "input_size": [self.channels, *self.size],
            "interpolation": self.interpolation,
            "crop_pct": crop_pct,
            "crop_mode": "center",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    # Shapes and descriptions.

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input: (height, width, channels)."""
        return *self.size, self.channels

    @property
    def unnormalized_shape(self) -> tuple[int, ...]:
        """Shape of one example before `normalize`: (height, width, 3), always RGB."""
        return *self.size, 3

    @property
    def size_text(self) -> str:
        """Input size in words, such as `224 pixels`, or `224x160 pixels` if height and width differ."""
        height, width = self.size
        return f"{height} pixels" if height == width else f"{height}x{width} pixels"

    @property
    def description(self) -> str:
        """Description for model cards of the steps before `normalize`, complete sentences."""
        size, shorter = "x".join(map(str, self.size)), pixels.resized_edge(self.size, self.crop_fraction)
        edges = f"the shorter edge to {shorter:.0f} pixels, the longer edge in proportion, rounded down"
        if self.size[0] != self.size[1]:
            least = "x".join(f"{each:.0f}" for each in pixels.covered_shape(self.size, self.crop_fraction))
            edges = f"by the smallest factor that gives at least {least} pixels, both edges rounded"
        rotation = "rotate a JPEG upright by" if self.exif_orientation else "ignore"
        kernel = {"bilinear": "bilinear", "bicubic": "bicubic with a = -0.5"}[self.interpolation]
        width = "that is widened" if self.antialias else "of the same width"
        like = "PIL's `resize`" if self.antialias else "`tf.image.resize`"
        return (
            f"Decode the image to RGB with 8 bits per channel: drop an alpha channel, and {rotation} the EXIF "
            f"orientation. Resize it ({kernel}, a kernel {width} for reductions, as {like}) without rounding the "
            f"values to 8 bits: {edges}. Crop {size} pixels (height x width) at the center, from half of the surplus "
            "of each edge on, rounded (of two nearest integers, to the even one). Divide by 255, and clip to [0, 1]."
        )

    @property
    def normalization(self) -> str:
        """Description of `normalize` for model cards, complete sentences."""
        if self.channels == 1:
            return f"Compute gray = 0.299 R + 0.587 G + 0.114 B. {super().normalization}"
        reversal = "Reverse the channels to BGR. " if self.channel_order == "bgr" else ""
        return reversal + super().normalization

    # From an example to the network's input.

    @property
    def _decoder(self) -> Decoder:
        return Decoder(self.max_pixels, self.exif_orientation)

    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Decode one image to RGB, uint8 [height, width, 3].

        Args:
            example: JPEG, PNG, BMP, GIF (first frame) or WebP, string scalar; or pixels, uint8 [h, w, 1 or 3].

        Raises:
            tf.errors.InvalidArgumentError: if the format is not supported, if the image is corrupt, or if its header
                claims more than `max_pixels`.
        """
        return self._decoder.decode(example)

    def original_size(self, example: tf.Tensor) -> tf.Tensor:
        """Return the shorter edge of an example of `decode` in pixels, according to its header; 0 if it has none."""
        if example.dtype == tf.uint8:
            return tf.reduce_min(tf.shape(example, tf.int64)[:2])
        size = tf.cond(
            tf.io.is_jpeg(example), lambda: headers.jpeg_size(example), lambda: headers.non_jpeg_size(example)
        )
        return tf.reduce_min(size)

    def decode_window(self, example: tf.Tensor, choose: ChooseWindow, *, at_least: tuple[int, int]) -> tf.Tensor:
        """Decode a window of one image, uint8 [h, w, 3]; see `Decoder.decode_window`."""
        return self._decoder.decode_window(example, choose, at_least=at_least)

    def center_crop(self, image: tf.Tensor) -> tf.Tensor:
        """Resize and crop a decoded image, uint8 [h, w, 3], to float32 [height, width, 3] in [0, 1]."""
        return self._center_crop(image, None)

    def _center_crop(self, image: tf.Tensor, rotation: tf.Tensor | None) -> tf.Tensor:
        """Resize and crop an image as it is stored, and rotate it upright; see `center_crop`."""
        return pixels.center_crop(
            image,
            self.size,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
            antialias=self.antialias,
            rotation=rotation,
        )

    def to_unnormalized(self, example: tf.Tensor) -> tf.Tensor:
        """Decode, resize and crop one image: RGB, float32 [height, width, 3] in [0, 1]."""
        return self._center_crop(*self._decoder.decode_stored(example))

    def to_batch_element(self, example: tf.Tensor) -> tf.Tensor:
        """Decode, resize and crop one image for augmentation, uint8 [height, width, channels]."""
        return self._to_channels(pixels.to_uint8(self.to_unnormalized(example)))

    def crop_to_batch_element(self, example: tf.Tensor, choose: ChooseWindow, *, antialias: bool) -> tf.Tensor:
        """Decode and resize a crop of one image for augmentation, uint8 [height, width, channels]."""
        window = self.decode_window(example, choose, at_least=self.size)
        resized = pixels.resize_window(window, self.size, interpolation=self.interpolation, antialias=antialias)
        return self._to_channels(resized)

    def from_batch(self, batch: tf.Tensor) -> tf.Tensor:
        """Normalize a training batch of `to_batch_element`: float32 [B, height, width, channels]."""
        return self._standardize(self._ordered(tf.cast(batch, tf.float32) / 255.0))

    def to_batch_dtype(self, values: tf.Tensor) -> tf.Tensor:
        """Round values in [0, 255] to uint8."""
        return tf.cast(tf.round(values), tf.uint8)

    @property
    def fill_value(self) -> tf.Tensor:
        """Fill of erased areas: mean of each channel in RGB order, uint8 [C]."""
        return pixels.to_uint8(tf.constant(self.mean[::-1] if self.channel_order == "bgr" else self.mean))

    def normalize(self, unnormalized: tf.Tensor) -> tf.Tensor:
        """Normalize RGB, float32 [..., 3] in [0, 1], to the network's input, float32 [..., channels]."""
        images = tf.convert_to_tensor(unnormalized)
        return self._standardize(self._ordered(self._to_channels(images)))

    def denormalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Invert `normalize` for a batch of the network's input: RGB in [0, 1], float32 [B, H, W, 3]."""
        images = self._ordered(super().denormalize(inputs))
        return tf.image.grayscale_to_rgb(images) if self.channels == 1 else images

    def _to_channels(self, images: tf.Tensor) -> tf.Tensor:
        """Return RGB, float or uint8 [..., 3], unchanged or as luma [..., 1], depending on `channels`."""
        if self.channels == 3:
            return images
        gray = pixels.luma(tf.cast(images, tf.float32))
        return gray if images.dtype.is_floating else tf.cast(tf.round(gray), images.dtype)

    def _ordered(self, images: tf.Tensor) -> tf.Tensor:
        """Reorder channels from RGB to the network's order, or back."""
        return images[..., ::-1] if self.channel_order == "bgr" else images

    # Files and arrays.

    @classmethod
    def is_example(cls, head: bytes) -> bool:
        """Return True for the first bytes of a JPEG, PNG, GIF, WebP or BMP image."""
        is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
        is_bmp = head[:2] == b"BM" and head[14:18] in _BMP_HEADER_SIZES  # "BM" alone may be text
        return super().is_example(head) or is_webp or is_bmp

    def explain_unreadable(self, example: tf.Tensor, *, is_unreadable: bool = False) -> str:
        """Return the reason why `decode` fails for an image; empty if it succeeds, and for pixels.

        Args:
            example: as for `decode`.
            is_unreadable: the image is known to be unreadable; its header is checked, but it is not decoded again.
        """
        if example.dtype != tf.string:
            return ""
        if not example.numpy():
            return "the file is empty"
        try:
            if fault := self._decoder.fault(example).numpy().decode():
                return fault
            if not is_unreadable:
                self._decoder.decode_stored(example)
                return ""
        except tf.errors.InvalidArgumentError:
            pass  # the cause of the error is not in its text
        name = "JPEG" if tf.io.is_jpeg(example) else headers.FORMATS[headers.non_jpeg_format(example)]
        return f"Invalid {name} data: corrupt or cut short"

    def encode(self, example: Any) -> bytes:
        """Return pixels, uint8 [h, w, 1 or 3], or an image of PIL as a PNG, and an encoded image as it is.

        Raises:
            UserError: for another type or shape.
        """
        if isinstance(example, bytes | bytearray):
            return bytes(example)
        if pil.is_pil_image(example):
            array = pil.to_pixels(example, exif_orientation=self.exif_orientation)
        else:
            array = as_array(example, "a path, bytes, a PIL image, or an array")
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3) or not array.size:
            raise UserError(f"{describe_array(array)}; expected uint8 [height, width, 1 or 3]")
        # Without compression, encoding is several times faster; the result is decoded right away.
        return tf.io.encode_png(array, compression=0).numpy()

    def decode_batch(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Decode, resize and crop encoded images: RGB in [0, 1], float32 [B, height, width, 3].

        Raises:
            tf.errors.InvalidArgumentError: if `decode` rejects an image; it states the index in the batch.
        """
        return _compiled_decode(self)(self.to_request(encoded)).numpy()

    def to_request(self, encoded: Sequence[bytes]) -> tf.Tensor:
        """Return encoded images as a string tensor [B]."""
        return tf.constant(list(encoded), tf.string)

    def decode_batch_in_graph(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decode images, string [B], as `decode_batch`, in graph operations."""

        def crop(image: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
            return self._center_crop(*self._decoder.decode_stored(image, max_pixels))

        return self._decoder.decode_batch(encoded, crop, self.size)

    def from_encoded(self, encoded: tf.Tensor) -> tf.Tensor:
        """Return the network's input, float32 [B, height, width, channels], from images, string [B]."""
        return self.normalize(_compiled_decode(self)(encoded))

    def check_unnormalized(self, values: np.ndarray) -> np.ndarray:
        """Return a batch of RGB images as float32 [B, height, width, 3].

        Raises:
            UserError: if shape or dtype differ, or if values are outside [0, 1].
        """
        check_shape(values, self.unnormalized_shape, self.plural)
        if not np.issubdtype(values.dtype, np.floating):
            raise UserError(f"images of {values.dtype}; expected float32 in [0, 1], which is pixels / 255")
        if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
            raise UserError(
                f"images from {values.min():.4g} to {values.max():.4g}; expected RGB in [0, 1], which is pixels / 255"
            )
        return values.astype(np.float32, copy=False)

    @classmethod
    def check_source(cls, source: str) -> None:
        """Accept any `data.source`: every source can hold images."""

    @classmethod
    def check_archive(cls, array: np.ndarray, name: str, data: DataConfig) -> np.ndarray:
        """Return an array of an archive as images, uint8 [N, H, W, 1 or 3].

        Raises:
            UserError: if shape or dtype differ; it states `name`.
        """
        images = array[..., np.newaxis] if array.ndim == 3 else array
        if array.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise UserError(
                f"{name} is {array.dtype} {list(array.shape)}; images are uint8 [N, H, W] or [N, H, W, 1 or 3], and "
                "signals take data.length"
            )
        return images

    @classmethod
    def random_examples(cls, data: DataConfig, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return random pixels, uint8 [count, H, W, channels]."""
        return generator.integers(0, 256, (count, *cls.shape_from_config(data)), np.uint8)

    def plot(self, example: np.ndarray) -> np.ndarray:
        """Return pixels unchanged, uint8 [H, W, 1 or 3], and convert values in [0, 1] to uint8."""
        return example if example.dtype == np.uint8 else np.rint(255 * example).astype(np.uint8)

    # Serving.

    def serving_inputs(self) -> tuple[ServingInput, ...]:
        """Return `image_bytes`, string [B], and `images`, float32 [B, height, width, 3] in [0, 1]."""
        image_bytes = ServingInput(tf.TensorSpec([None], tf.string, name="image_bytes"), self.from_encoded)
        return image_bytes, self.unnormalized_input

    def random_requests(self, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Return random images as JPEGs, string [count], and as pixels in [0, 1], float32."""
        images = generator.integers(0, 256, (count, *self.unnormalized_shape), np.uint8)
        encoded = np.array([tf.io.encode_jpeg(each).numpy() for each in images], object)
        return {"image_bytes": encoded, self.plural: images / np.float32(255)}


def _timm_resized_edge(size: tuple[int, int], crop_pct: float) -> float:
    """Return the shorter edge to which timm resizes an image; infinity for a fraction whose inverse overflows."""
    return float(np.floor(min(size) / crop_pct))


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value in choices:
        return
    lower = value.lower() if isinstance(value, str) else value
    advice = f"; did you mean {lower!r}?" if lower in choices else ""
    raise UserError(f"{name}={shorten(value)}; expected {' or '.join(choices)}{advice}")


@functools.lru_cache(maxsize=4)  # each takes up to 50 MB
def _compiled_decode(preprocess: ImagePreprocess) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `decode_batch_in_graph` as a function that is traced once, although several signatures contain it."""
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(without_autograph(preprocess.decode_batch_in_graph), input_signature=signature)
