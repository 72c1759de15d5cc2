"""Branches that are functions of their own: their results, their errors, and the graph of a decoder."""

import pytest
import tensorflow as tf

from resnet_tf.inputs import headers
from resnet_tf.inputs.decoding import Decoder, _traced
from resnet_tf.inputs.deferred import deferred
from resnet_tf.inputs.formats.frames import Frame, whole_image


def _not_inlined(function) -> list[str]:
    return [each.signature.name for each in function.graph.as_graph_def().library.function if each.attr["_noinline"].b]


def test_a_branch_has_the_same_results_and_errors():
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def compute(number):
        size = tf.stack([number, number])

        def positive():
            with tf.control_dependencies([tf.debugging.assert_less(number, tf.constant(9, tf.int64), "too large")]):
                return whole_image("x", size, tf.strings.as_string(number))

        return tf.cond(number > 0, deferred(positive), lambda: whole_image("", size, ""))

    for number, expected in ((3, (b"x", b"3")), (-3, (b"", b""))):
        frame = compute(tf.constant(number, tf.int64))
        assert isinstance(frame, Frame)
        assert (frame.encoded.numpy(), frame.fault.numpy(), frame.size.numpy().tolist()) == (*expected, [number] * 2)
    assert len(_not_inlined(compute.get_concrete_function())) == 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        compute(tf.constant(10, tf.int64))


@pytest.mark.parametrize(("method", "conditions"), [("_inspect", 1), ("_decode_encoded", 2), ("_inspect_jpeg", 0)])
def test_what_few_images_need_is_not_inlined(method, conditions):
    """Formats other than JPEG, and the scans of a JPEG that may have many."""
    function = _traced(Decoder(max_pixels=1000, exif_orientation=False), method).get_concrete_function()
    assert len(_not_inlined(function)) == conditions * len(headers.FORMATS) + 1
