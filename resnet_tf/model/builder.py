"""The builder of every residual network: an `Arch` in, a Functional Keras model out."""

from collections.abc import Iterator, Sequence

import keras
from keras import KerasTensor, layers
from keras.initializers import VarianceScaling

from resnet_tf.core.errors import UserError, closest
from resnet_tf.model import blocks
from resnet_tf.model.arch import Arch
from resnet_tf.model.blocks import Place

POOL_LAYER = "pool"
LOGITS_LAYER = "logits"


def build(
    arch: Arch,
    *,
    input_shape: tuple[int | None, ...],
    num_classes: int,
    name: str,
    features: Sequence[str] = (),
) -> keras.Model:
    """Build a Functional Keras model.

    Args:
        arch: what to build.
        input_shape: (height, width, channels), or (length, channels) in one dimension; None leaves a size open.
        num_classes: outputs of the last Dense layer; 0 stops at the pooled features.
        name: name of the model.
        features: `stem`, `stage1`, `stage2`, ...: put out these feature maps instead of a class head.

    Returns:
        A model from float [N, H, W, C], already normalised, to float32 [N, num_classes] logits, to float32
        [N, channels] for `num_classes=0`, or to a dict from each of `features` to its [N, h, w, channels] map.

    Raises:
        UserError: for an input without channels, smaller than one pixel of the last feature map, or an unknown feature.
    """
    _check_input_shape(arch, input_shape, name)
    inputs = layers.Input(input_shape, name="images")
    maps = {"stem": _stem(inputs, arch)}
    x = maps["stem"]
    places = list(_places(arch))
    for stage in range(len(arch.depths)):
        for place in places[stage]:
            x = (blocks.preactivated_residual if arch.preactivation else blocks.residual)(x, arch, place)
        maps[f"stage{stage + 1}"] = x
    if features:
        return keras.Model(inputs, {feature: _chosen(maps, feature) for feature in features}, name=name)
    if arch.preactivation:
        x = blocks.norm(x, arch, name="final")
    return keras.Model(inputs, _head(x, arch, num_classes), name=name)


def _stem(x: KerasTensor, arch: Arch) -> KerasTensor:
    width = arch.stem_width
    if arch.stem == "none":
        return x
    if arch.stem == "deep":
        x = blocks.conv_norm(x, arch, width // 2, 3, stride=2, name="stem_conv1")
        x = blocks.conv_norm(x, arch, width // 2, 3, name="stem_conv2")
        x = blocks.conv_norm(x, arch, width, 3, name="stem_conv3")
    else:
        kernel, stride = (7, 2) if arch.stem == "conv7" else (3, 1)
        x = blocks.conv(x, arch, width, kernel, stride=stride, use_bias=arch.conv_bias, name="stem_conv")
        if not arch.preactivation:  # there, the first block normalises
            x = blocks.norm(x, arch, name="stem_conv")
    if not arch.has_stem_pool:
        return x
    if arch.stem_pool == "conv":
        return blocks.conv_norm(x, arch, width, 3, stride=2, name="stem_pool_conv")
    x = blocks.of_dimensions("ZeroPadding", arch)(1, name="stem_pool_pad")(x)
    return blocks.of_dimensions("MaxPooling", arch)(3, strides=2, name="stem_pool")(x)


def _places(arch: Arch) -> Iterator[list[Place]]:
    """For each stage, where its blocks stand."""
    reached, dilation, index = arch.stem_stride, 1, 0
    for stage, (depth, filters, stage_stride) in enumerate(zip(arch.depths, arch.widths, arch.strides, strict=True)):
        places = []
        striding = 0 if arch.stride_block == "first" else depth - 1
        for block in range(depth):
            stride, first_dilation = (stage_stride if block == striding else 1), dilation
            if arch.output_stride and reached * stride > arch.output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            index += 1
            places.append(
                Place(
                    name=f"stage{stage + 1}_block{block + 1}",
                    filters=filters,
                    stride=stride,
                    dilation=dilation,
                    first_dilation=first_dilation,
                    drop_rate=arch.stochastic_depth * index / sum(arch.depths),
                )
            )
        yield places


def _head(x: KerasTensor, arch: Arch, num_classes: int) -> KerasTensor:
    # The mean over pixels and the head are float32 under every policy: they cost nothing, and logits stay exact.
    x = blocks.of_dimensions("GlobalAveragePooling", arch)(name=POOL_LAYER, dtype="float32")(x)
    if not num_classes:
        return x
    if arch.dropout:
        x = layers.Dropout(arch.dropout, name="dropout", dtype="float32")(x)
    # torch.nn.Linear's kernel initialisation, uniform in +-1/sqrt(features).
    initializer = VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
    return layers.Dense(num_classes, kernel_initializer=initializer, name=LOGITS_LAYER, dtype="float32")(x)


def _chosen(maps: dict[str, KerasTensor], feature: str) -> KerasTensor:
    if feature not in maps:
        raise UserError(f"unknown feature {feature!r}; did you mean {closest(feature, maps)}?")
    return maps[feature]


def _check_input_shape(arch: Arch, input_shape: tuple[int | None, ...], name: str) -> None:
    form = "(height, width, channels), such as (224, 224, 3)"
    if arch.dimensions == 1:
        form = "(length, channels), such as (16000, 1)"
    if len(input_shape) != arch.dimensions + 1 or not input_shape[-1] or input_shape[-1] < 1:
        raise UserError(f"input_shape={tuple(input_shape)} is not {form}, which {name} takes")
    known = [side for side in input_shape[:-1] if side is not None]
    if min(known, default=arch.total_stride) < arch.total_stride:
        size, places = ("x".join(map(str, each)) for each in (input_shape[:-1], [arch.total_stride] * arch.dimensions))
        unit = " pixels" if arch.dimensions == 2 else ""
        raise UserError(
            f"an input of {size}{unit} is too small for {name}, whose last feature map has one place for {places} of "
            "the input; stem='small' keeps small inputs large"
        )
