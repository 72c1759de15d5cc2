"""Loading of SavedModels, with checks of the signatures that are called."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.frozen_signatures import load_frozen
from resnet_tf.core.native_log import silence_unsupported_types
from resnet_tf.core.paths import literal_path


def load_saved_model(directory: Path) -> Any:
    """Load a SavedModel, whose graph is a program: its operations can read and write files.

    Raises:
        UserError: if it cannot be loaded.
    """
    with _naming(directory), literal_path(directory) as path:
        return tf.saved_model.load(str(path))


def load_signatures(directory: Path) -> Any:
    """Load a SavedModel for calls of its signatures, which are the only attribute that the result is sure to have.

    Raises:
        UserError: if it cannot be loaded.
    """
    with _naming(directory):
        frozen = load_frozen(directory)
    return frozen or load_saved_model(directory)


@contextlib.contextmanager
def _naming(directory: Path) -> Iterator[None]:
    """Convert the errors of loading a SavedModel."""
    silence_unsupported_types()
    try:
        yield
    except Exception as error:  # TensorFlow raises many types for a graph that does not fit together
        raise UserError(f"{str(directory)!r} cannot be loaded: {plain_reason(error)}") from error


def check_signature(
    model: Any,
    name: str,
    directory: Path,
    *,
    argument: tf.TensorSpec,
    outputs: Sequence[str],
    classes: int | None,
) -> None:
    """Check that a loaded SavedModel has a signature.

    Args:
        model: see `load_saved_model`.
        name: name of the signature.
        directory: where the model was loaded from, for messages.
        argument: name, dtype and shape of its only argument.
        outputs: names of outputs that it must have, float32 [B, classes].
        classes: number of classes; None for any.

    Raises:
        UserError: if it has no such signature.
    """
    signature = getattr(model, "signatures", {}).get(name)
    if signature is None:
        raise UserError(f"{str(directory)!r} has no signature {name!r}")
    _, arguments = signature.structured_input_signature
    found = arguments.get(argument.name)
    if set(arguments) != {argument.name} or found.dtype != argument.dtype or not _fits(found.shape, argument.shape):
        listed = ", ".join(f"{key}: {each.dtype.name} {each.shape}" for key, each in sorted(arguments.items()))
        raise UserError(
            f"the signature {name!r} of {str(directory)!r} takes {listed or 'nothing'}; its preprocessing gives "
            f"{argument.name}: {argument.dtype.name} {argument.shape}"
        )
    for output in outputs:
        value = signature.structured_outputs.get(output) if isinstance(signature.structured_outputs, dict) else None
        if value is None or value.dtype != tf.float32 or not _fits(value.shape, tf.TensorShape([None, classes])):
            given = "no such output" if value is None else f"{value.dtype.name} {value.shape}"
            raise UserError(
                f"the signature {name!r} of {str(directory)!r} must return {output}: float32 [batch, "
                f"{'classes' if classes is None else classes}], has {given}"
            )


def _fits(found: tf.TensorShape, expected: tf.TensorShape) -> bool:
    return found.is_compatible_with(expected)
