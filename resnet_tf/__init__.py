"""Residual networks for Keras: data, training, weights and serving that agree."""

import importlib
from typing import TYPE_CHECKING, Any

from resnet_tf.backend import require_tensorflow_backend

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resnet_tf.config import Config, list_configs, load_config
    from resnet_tf.errors import UserError
    from resnet_tf.model.create import create_model
    from resnet_tf.model.layers import BatchNormalization
    from resnet_tf.model.pretrained import list_weights
    from resnet_tf.model.resnet import Arch
    from resnet_tf.model.zoo import list_models
    from resnet_tf.serving.export import export_model
    from resnet_tf.serving.predictor import Predictor
    from resnet_tf.spec import Preprocess
    from resnet_tf.training.loop import train_and_evaluate
    from resnet_tf.training.run import load_run

# Imported on first use, so that `--help` does not wait for TensorFlow.
_HOMES = {
    "Arch": "resnet_tf.model.resnet",
    "BatchNormalization": "resnet_tf.model.layers",
    "Config": "resnet_tf.config",
    "Predictor": "resnet_tf.serving.predictor",
    "Preprocess": "resnet_tf.spec",
    "UserError": "resnet_tf.errors",
    "create_model": "resnet_tf.model.create",
    "export_model": "resnet_tf.serving.export",
    "list_configs": "resnet_tf.config",
    "list_models": "resnet_tf.model.zoo",
    "list_weights": "resnet_tf.model.pretrained",
    "load_config": "resnet_tf.config",
    "load_run": "resnet_tf.training.run",
    "train_and_evaluate": "resnet_tf.training.loop",
}

__all__ = [
    "Arch",
    "BatchNormalization",
    "Config",
    "Predictor",
    "Preprocess",
    "UserError",
    "create_model",
    "export_model",
    "list_configs",
    "list_models",
    "list_weights",
    "load_config",
    "load_run",
    "train_and_evaluate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resnet_tf' has no attribute {name!r}")
    require_tensorflow_backend()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
