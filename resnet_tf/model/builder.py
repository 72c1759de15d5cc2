"""Builder of all residual networks: from an `Arch` to a Functional Keras model."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers
from keras.initializers import VarianceScaling

from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.ranges import MAX_CLASSES, MAX_SIZE, MAX_VALUES, check_integer, is_integer, shorten
from resnet_tf.model import blocks, options
from resnet_tf.model.arch import Arch
from resnet_tf.model.blocks import BlockConfig
from resnet_tf.model.initializers import FanOutNormal
from resnet_tf.model.layers import EdgePadding
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.whitening import STEM_LAYER

POOL_LAYER = "pool"
LOGITS_LAYER = "logits"


def build(
    arch: Arch,
    *,
    input_shape: tuple[int | None, ...],
    num_classes: int,
    name: str,
    features: Sequence[str] = (),
    model_name: str | None = None,
) -> ResidualNetwork:
    """Build a Functional Keras model.

    Args:
        arch: architecture.
        input_shape: (height, width, channels), or (length, channels) in one dimension; None is a variable size.
        num_classes: units of the head; 0 returns the pooled features.
        name: name in the zoo, and of the model.
        features: names of feature maps to return instead of logits: `stem`, `stage1`, `stage2`, ...
        model_name: another name of the model, with which the names of all layers begin then.

    Returns:
        A model from normalized float [N, H, W, C] to float32 logits [N, num_classes], to pooled features, float32
        [N, channels], for `num_classes=0`, or to a dict from each of `features` to its map [N, h, w, channels].

    Raises:
        UserError: for an input that is no shape or smaller than the network's stride, a number of classes out of range,
            channels that the normalization or the shortcuts cannot divide, or an unknown feature or activation.
    """
    num_classes = _plain(num_classes)
    _check_arguments(arch, num_classes, features)
    if isinstance(input_shape, Sequence):
        input_shape = tuple(map(_plain, input_shape))
    _check_input_shape(arch, input_shape, name)
    metadata = Metadata(zoo_name=name, arch=arch)
    prefix = "" if model_name is None else f"{model_name}_"
    inputs = layers.Input(input_shape, name=f"{prefix}images")
    maps = {"stem": _stem(inputs, arch, prefix)}
    x = maps["stem"]
    residual = blocks.preactivated_residual if arch.preactivation else blocks.residual
    for stage, configs in enumerate(_block_configs(arch, prefix)):
        if arch.transition == "pool":
            width, stride = arch.widths[stage] * options.EXPANSION[arch.block], arch.strides[stage]
            x = blocks.pool_transition(x, arch, width, stride=stride, name=f"{prefix}stage{stage + 1}_transition")
        for block in configs:
            x = residual(x, arch, block)
        maps[f"stage{stage + 1}"] = x
    if features:
        outputs = {feature: _select(maps, feature) for feature in features}
        return ResidualNetwork(inputs, outputs, name=model_name or name, metadata=metadata)
    if arch.preactivation:
        x = blocks.norm(x, arch, name=f"{prefix}final")
    outputs = _head(x, arch, num_classes, prefix)
    return ResidualNetwork(inputs, outputs, name=model_name or name, metadata=metadata)


def is_head(variable: keras.Variable) -> bool:
    """Return True for a variable of the head of a network without another `model_name`."""
    return variable.path.startswith(f"{LOGITS_LAYER}/")


def _stem(x: KerasTensor, arch: Arch, prefix: str) -> KerasTensor:
    width = arch.stem_width
    if arch.stem == "none":
        return x
    if arch.stem == "whitening":
        convolution = blocks.spatial_layer("Conv", arch)
        width, size = options.whitening_width(x.shape[-1], arch.dimensions), options.WHITENING_KERNEL
        initializer, name = FanOutNormal(), f"{prefix}{STEM_LAYER}"
        x = convolution(width, size, use_bias=False, trainable=False, kernel_initializer=initializer, name=name)(x)
        return x if arch.preactivation else blocks.activate(x, arch, name=name)
    if arch.stem == "deep":
        x = blocks.conv_norm(x, arch, width // 2, 3, stride=2, name=f"{prefix}stem_conv1")
        x = blocks.conv_norm(x, arch, width // 2, 3, name=f"{prefix}stem_conv2")
        x = blocks.conv_norm(x, arch, width, 3, name=f"{prefix}stem_conv3")
    else:
        kernel, stride = (7, 2) if arch.stem == "conv7" else (3, 1)
        x = blocks.conv(x, arch, width, kernel, stride=stride, use_bias=arch.conv_bias, name=f"{prefix}stem_conv")
        if not arch.preactivation:  # otherwise the first block normalizes
            x = blocks.norm(x, arch, name=f"{prefix}stem_conv")
    if not arch.has_stem_pool:
        return x
    if arch.stem_pool == "conv":
        return blocks.conv_norm(x, arch, width, 3, stride=2, name=f"{prefix}stem_pool_conv")
    name = f"{prefix}stem_pool_pad"
    # Max pooling must ignore the padding. No output of ReLU is below 0; in networks with pre-activation, the zeros are
    # part of the definition (keras.applications, BiT).
    is_zero_padded = arch.preactivation or arch.activation in ("relu", "relu6")
    x = (blocks.spatial_layer("ZeroPadding", arch)(1, name=name) if is_zero_padded else EdgePadding(name=name))(x)
    return blocks.spatial_layer("MaxPooling", arch)(3, strides=2, name=f"{prefix}stem_pool")(x)


def _block_configs(arch: Arch, prefix: str) -> Iterator[list[BlockConfig]]:
    """Yield the settings of the blocks of each stage."""
    total_stride, dilation, index = arch.stem_stride, 1, 0
    for stage, (depth, filters, stage_stride) in enumerate(zip(arch.depths, arch.widths, arch.strides, strict=True)):
        configs = []
        for block in range(depth):
            stride, first_dilation = (stage_stride if block == arch.strided_block(depth) else 1), dilation
            if arch.output_stride and total_stride * stride > arch.output_stride:
                dilation, stride = dilation * stride, 1
            total_stride *= stride
            index += 1
            configs.append(
                BlockConfig(
                    name=f"{prefix}stage{stage + 1}_block{block + 1}",
                    filters=filters,
                    stride=stride,
                    dilation=dilation,
                    first_dilation=first_dilation,
                    drop_rate=arch.stochastic_depth * index / sum(arch.depths),
                )
            )
        yield configs


def _head(x: KerasTensor, arch: Arch, num_classes: int, prefix: str) -> KerasTensor:
    # Pooling and head are float32 under every policy: their cost is negligible, and logits stay exact.
    x = blocks.spatial_layer("GlobalAveragePooling", arch)(name=f"{prefix}{POOL_LAYER}", dtype="float32")(x)
    if not num_classes:
        return x
    if arch.dropout:
        x = layers.Dropout(arch.dropout, name=f"{prefix}dropout", dtype="float32")(x)
    # Kernel initialization of torch.nn.Linear: uniform in +-1/sqrt(features).
    initializer = VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
    name = f"{prefix}{LOGITS_LAYER}"
    return layers.Dense(num_classes, kernel_initializer=initializer, name=name, dtype="float32")(x)


def _select(maps: dict[str, KerasTensor], feature: str) -> KerasTensor:
    if feature not in maps:
        raise UserError(f"unknown feature {feature!r}; did you mean {closest(feature, maps)}?")
    return maps[feature]


def _plain(value: Any) -> Any:
    """Return an integer of NumPy as an `int`, which JSON can hold; other values are returned unchanged."""
    return int(value) if isinstance(value, np.integer) else value


def _check_arguments(arch: Arch, num_classes: int, features: Sequence[str]) -> None:
    options.check_activation(arch.activation)
    check_integer("num_classes", num_classes, minimum=0, maximum=MAX_CLASSES)
    if isinstance(features, str) or not all(isinstance(each, str) for each in features):
        raise UserError(f"features takes names of stages, such as ('stage2', 'stage4'), got {shorten(features)}")


def _check_input_shape(arch: Arch, input_shape: tuple[int | None, ...], name: str) -> None:
    form = "(height, width, channels), such as (224, 224, 3)"
    if arch.dimensions == 1:
        form = "(length, channels), such as (16000, 1)"
    is_shape = isinstance(input_shape, Sequence) and all(each is None or is_integer(each) for each in input_shape)
    if not is_shape or len(input_shape) != arch.dimensions + 1 or (input_shape[-1] or 0) < 1:
        raise UserError(f"input_shape={shorten(input_shape)} is not {form}, which {name} takes")
    known = [size for size in input_shape[:-1] if size is not None]
    for each in known:
        check_integer("each size of input_shape", each, minimum=1, maximum=MAX_SIZE ** (3 - arch.dimensions))
    if math.prod(each or 1 for each in input_shape) > MAX_VALUES:
        raise UserError(f"input_shape={tuple(input_shape)} has more than {MAX_VALUES} values")
    smallest = arch.total_stride + (options.WHITENING_KERNEL - 1 if arch.stem == "whitening" else 0)
    if min(known, default=smallest) < smallest:
        size, least = ("x".join(map(str, each)) for each in (input_shape[:-1], [smallest] * arch.dimensions))
        unit = "pixels" if arch.dimensions == 2 else "samples"
        raise UserError(
            f"input of {size} {unit} is too small for {name}, which needs at least {least}; stem='small' suits small "
            "inputs"
        )
