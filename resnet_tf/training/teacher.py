"""Teacher network for knowledge distillation."""

from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from resnet_tf.core.class_names import find_indices
from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.export_metadata import SAVED_MODELS, read_export
from resnet_tf.core.saved_models import check_signature, load_saved_model
from resnet_tf.core.targets import MULTI_LABEL, Targets, targets_with
from resnet_tf.inputs import Preprocess

# (images, float [B, H, W, C]; height and width) -> images of this size.
Resize = Callable[[tf.Tensor, tuple[int, ...]], tf.Tensor]
_SIGNATURE = "images"  # and the name of its argument


class Teacher:
    """Exported model whose logits the student is trained on. Its weights are constants.

    Args:
        path: a serving or hub export, or the directory of its versions, of which the newest is used.
        preprocess: preprocessing of the student.
        labels: class names of the student; those of the teacher may be in another order.
        targets: form of the targets of the student.

    Raises:
        UserError: if there is no such export, a file of it was changed, or it has other classes or targets.
    """

    def __init__(self, path: str, preprocess: Preprocess, labels: tuple[str, ...], targets: Targets):
        self._preprocess = preprocess
        with prefix_errors(f"loss.teacher={path!r} cannot be used"):
            export = read_export(path)
            metadata = export.metadata
            if metadata["target"] not in SAVED_MODELS:
                raise UserError(f"it is an export for {metadata['target']}, not for {' or '.join(SAVED_MODELS)}")
            self._order = find_indices(labels, metadata["labels"])
            if sorted(self._order) != list(range(len(metadata["labels"]))):
                raise UserError(f"its classes differ from those of the data: {', '.join(metadata['labels'])}")
            if targets_with(metadata.get("thresholds")) is not targets:
                form = "one class" if targets is MULTI_LABEL else "any number of classes"
                raise UserError(f"it was trained on examples with {form}, which those of the data have not")
            with export.naming_metadata():
                self._sizes = Preprocess.from_dict(metadata["preprocess"]).spatial_shape
            model = load_saved_model(export.directory)
            argument = tf.TensorSpec([None, *self._sizes, 3], tf.float32, name=_SIGNATURE)
            check_signature(
                model,
                _SIGNATURE,
                export.directory,
                argument=argument,
                outputs=["logits"],
                classes=len(labels),
            )
            # Of the outputs, the logits alone: XLA does not compile the names of the classes, which are strings.
            signature = model.signatures[_SIGNATURE]
            frozen = convert_variables_to_constants_v2(signature)
            outputs = tf.nest.pack_sequence_as(signature.structured_outputs, frozen.outputs)
            self._logits = frozen.prune(frozen.inputs[0].name, outputs["logits"].name)

    def __call__(self, inputs: tf.Tensor, resize: Resize) -> tf.Tensor:
        """Return the teacher's logits in the order of the student's classes, float32 [B, classes].

        Args:
            inputs: input of the student, float32 [B, H, W, C].
            resize: see `Resize`.
        """
        images = self._preprocess.denormalize(inputs)
        if self._sizes != self._preprocess.spatial_shape:
            images = resize(images, self._sizes)
        return tf.stop_gradient(tf.gather(self._logits(images), self._order, axis=1))
