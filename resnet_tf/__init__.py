"""Residual networks for Keras: data, training, weights and serving that agree."""

import importlib
from typing import TYPE_CHECKING, Any

from resnet_tf.core.installation import check_installation

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resnet_tf.config import Config, list_configs, load_config
    from resnet_tf.core.errors import Interrupted, UserError
    from resnet_tf.core.metrics import Evaluation
    from resnet_tf.data.prepare import prepare_folder
    from resnet_tf.data.sources import Source, open_source
    from resnet_tf.inputs.spec import Preprocess
    from resnet_tf.model.arch import Arch
    from resnet_tf.model.create import convert_file, create_model
    from resnet_tf.model.layers import BatchNormalization
    from resnet_tf.model.weights.published import list_weights
    from resnet_tf.model.zoo import list_models
    from resnet_tf.serving.export import export_model
    from resnet_tf.serving.predictor import Prediction, Predictor
    from resnet_tf.training.evaluation import evaluate_run
    from resnet_tf.training.run import Run, load_run
    from resnet_tf.training.throughput import measure_input, measure_training
    from resnet_tf.workflows.plan import make_plan
    from resnet_tf.workflows.reporting import write_run_report
    from resnet_tf.workflows.train import train_and_evaluate

# Imported on first use, so that `--help` does not wait for TensorFlow.
_HOMES = {
    "Arch": "resnet_tf.model.builder",
    "BatchNormalization": "resnet_tf.model.layers",
    "Config": "resnet_tf.config",
    "Evaluation": "resnet_tf.core.metrics",
    "Interrupted": "resnet_tf.core.errors",
    "Prediction": "resnet_tf.serving.predictor",
    "Predictor": "resnet_tf.serving.predictor",
    "Preprocess": "resnet_tf.inputs.spec",
    "Run": "resnet_tf.training.run",
    "Source": "resnet_tf.data.sources",
    "UserError": "resnet_tf.core.errors",
    "convert_file": "resnet_tf.model.create",
    "create_model": "resnet_tf.model.create",
    "evaluate_run": "resnet_tf.training.evaluation",
    "export_model": "resnet_tf.serving.export",
    "list_configs": "resnet_tf.config",
    "list_models": "resnet_tf.model.zoo",
    "list_weights": "resnet_tf.model.weights.published",
    "load_config": "resnet_tf.config",
    "load_run": "resnet_tf.training.run",
    "make_plan": "resnet_tf.workflows.plan",
    "measure_input": "resnet_tf.training.throughput",
    "measure_training": "resnet_tf.training.throughput",
    "open_source": "resnet_tf.data.sources",
    "prepare_folder": "resnet_tf.data.prepare",
    "train_and_evaluate": "resnet_tf.workflows.train",
    "write_run_report": "resnet_tf.workflows.reporting",
}

__all__ = [
    "Arch",
    "BatchNormalization",
    "Config",
    "Evaluation",
    "Interrupted",
    "Prediction",
    "Predictor",
    "Preprocess",
    "Run",
    "Source",
    "UserError",
    "convert_file",
    "create_model",
    "evaluate_run",
    "export_model",
    "list_configs",
    "list_models",
    "list_weights",
    "load_config",
    "load_run",
    "make_plan",
    "measure_input",
    "measure_training",
    "open_source",
    "prepare_folder",
    "train_and_evaluate",
    "write_run_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resnet_tf' has no attribute {name!r}")
    check_installation()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
