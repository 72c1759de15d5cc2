"""Number of parameters of an architecture, without building the network."""

from resnet_tf.model.arch import Arch
from resnet_tf.model.options import EXPANSION, WHITENING_KERNEL, squeezed_width, whitening_width

_STEM_KERNELS = {"conv7": 7, "small": 3}


def count_parameters(arch: Arch, *, num_classes: int, channels: int = 3) -> tuple[int, int]:
    """Return the number of parameters of a network, and that of its statistics of the data, which are not trained.

    Args:
        arch: the architecture.
        num_classes: units of the head; 0 for none.
        channels: channels of the input.
    """
    count = _Count(arch)
    width = _count_stem(count, arch, channels)
    stages = zip(arch.depths, arch.widths, arch.strides, arch.cumulative_strides[:-1], strict=True)
    for depth, filters, stage_stride, stride_before in stages:
        if arch.transition == "pool":
            width = count.conv_norm(width, filters * EXPANSION[arch.block], 3)
        for block in range(depth):
            is_dilated = 0 < arch.output_stride <= stride_before
            stride = stage_stride if block == arch.strided_block(depth) and not is_dilated else 1
            if arch.preactivation:
                _count_preactivated(count, arch, width, filters)
            else:
                _count_block(count, arch, width, filters, stride)
            width = filters * EXPANSION[arch.block]
    if arch.preactivation:
        count.norm(width)
    if num_classes:
        count.parameters += (width + 1) * num_classes
    return count.parameters, count.statistics


class _Count:
    """Sum of the parameters of layers."""

    def __init__(self, arch: Arch):
        self._arch = arch
        self.parameters = self.statistics = 0

    def conv(self, inputs: int, filters: int, kernel: int, *, groups: int = 1, bias: bool = False) -> int:
        """Add a convolution, and return its output channels."""
        self.parameters += kernel**self._arch.dimensions * inputs // groups * filters + bias * filters
        return filters

    def norm(self, width: int) -> int:
        """Add a normalization, and return its channels."""
        self.parameters += 2 * width
        self.statistics += 2 * width if self._arch.norm == "batch" else 0
        return width

    def conv_norm(self, inputs: int, filters: int, kernel: int, *, groups: int = 1) -> int:
        """Add a convolution with its normalization, and return its output channels."""
        return self.norm(self.conv(inputs, filters, kernel, groups=groups))


def _count_stem(count: _Count, arch: Arch, channels: int) -> int:
    width = arch.stem_width
    if arch.stem == "none":
        return channels
    if arch.stem == "whitening":
        width = whitening_width(channels, arch.dimensions)
        count.statistics += WHITENING_KERNEL**arch.dimensions * channels * width
        return width
    if arch.stem == "deep":
        half = count.conv_norm(channels, width // 2, 3)
        count.conv_norm(count.conv_norm(half, half, 3), width, 3)
    else:
        count.conv(channels, width, _STEM_KERNELS[arch.stem], bias=arch.conv_bias)
        if not arch.preactivation:
            count.norm(width)
    if arch.has_stem_pool and arch.stem_pool == "conv":
        count.conv_norm(width, width, 3)
    return width


def _count_block(count: _Count, arch: Arch, inputs: int, filters: int, stride: int) -> None:
    width = filters * EXPANSION[arch.block]
    if arch.block == "bottleneck":
        inner = arch.inner_width(filters)
        y = count.conv_norm(count.conv_norm(inputs, inner, 1), inner, 3, groups=arch.groups)
        count.conv_norm(y, width, 1)
    else:
        y = count.conv_norm(inputs, filters, 3)
        if arch.block == "basic":
            count.conv_norm(y, filters, 3)
    if arch.se_ratio:
        count.conv(count.conv(width, squeezed_width(width, arch.se_ratio), 1, bias=True), width, 1, bias=True)
    if arch.shortcut in ("projection", "average") and (stride > 1 or inputs != width):
        count.conv_norm(inputs, width, 1)


def _count_preactivated(count: _Count, arch: Arch, inputs: int, filters: int) -> None:
    width = filters * EXPANSION[arch.block]
    count.norm(inputs)
    if arch.block == "bottleneck":
        y = count.conv_norm(count.conv_norm(inputs, filters, 1), filters, 3)
        count.conv(y, width, 1, bias=arch.conv_bias)
    else:
        count.conv(count.conv_norm(inputs, filters, 3), filters, 3, bias=arch.conv_bias)
    if inputs != width:
        count.conv(inputs, width, 1, bias=arch.conv_bias)
