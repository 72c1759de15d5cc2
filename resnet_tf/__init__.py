"""Residual networks for Keras: data, training, weights and serving that agree."""

import functools
import importlib
from typing import TYPE_CHECKING, Any

from resnet_tf.core.after_import import call_after_import
from resnet_tf.core.installation import check_installation
from resnet_tf.core.onednn import turn_on as turn_on_onednn
from resnet_tf.core.version import __version__ as __version__

if TYPE_CHECKING:
    from resnet_tf.config import Config, list_configs, load_config
    from resnet_tf.core.calibration import Calibration
    from resnet_tf.core.calibration_check import CalibrationCheck, calibrate
    from resnet_tf.core.errors import Interrupted, UserError
    from resnet_tf.core.metrics import Evaluation, SingleLabelEvaluation
    from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
    from resnet_tf.core.out_of_distribution import OutOfDistribution
    from resnet_tf.core.robustness import Robustness
    from resnet_tf.core.serving_benchmark import ServingBenchmark
    from resnet_tf.data.sources import Source, open_source
    from resnet_tf.inputs import BandsPreprocess, ImagePreprocess, Preprocess, SignalPreprocess
    from resnet_tf.model.arch import Arch
    from resnet_tf.model.create import create_model, load_from_hub
    from resnet_tf.model.layers import BatchNormalization
    from resnet_tf.model.network import ResidualNetwork
    from resnet_tf.model.weights.published import PublishedWeights, WeightsTable, list_weights
    from resnet_tf.model.zoo import list_models
    from resnet_tf.serving.export import export_model
    from resnet_tf.serving.predictor import Prediction, Predictor
    from resnet_tf.training.evaluation import evaluate_run
    from resnet_tf.training.run import Run, load_run
    from resnet_tf.workflows.audit import AuditResult, audit
    from resnet_tf.workflows.benchmark import BenchmarkResult, benchmark
    from resnet_tf.workflows.compare import CompareResult, compare
    from resnet_tf.workflows.convert import ConvertResult, convert
    from resnet_tf.workflows.demo import DemoServer, demo
    from resnet_tf.workflows.evaluate import EvaluateResult, evaluate
    from resnet_tf.workflows.export import export
    from resnet_tf.workflows.plan import Plan, plan
    from resnet_tf.workflows.predict import predict
    from resnet_tf.workflows.prepare import PrepareResult, prepare
    from resnet_tf.workflows.preview import preview
    from resnet_tf.workflows.prove import ProveResult, prove
    from resnet_tf.workflows.push import push_to_hub
    from resnet_tf.workflows.serve_data import DataService, serve_data
    from resnet_tf.workflows.train import TrainResult, train, train_and_evaluate

# Imported on first use, so that `--help` does not wait for TensorFlow.
#
# Several functions have the name of a command, a module of this package: `resnet_tf.train(...)` and
# `python -m resnet_tf.train`. An import of that module would set the attribute `train` of this package to it and so
# replace the function; Python does so after the module has run, whatever the module or this file does before. Commands
# therefore refuse to be imported (`command_line.refuse_import`); `python -m` runs them as `__main__`, which sets no
# attribute. So each name below is the function in every order of imports.
_MODULES = {
    "config": ("Config", "list_configs", "load_config"),
    "core.calibration": ("Calibration",),
    "core.calibration_check": ("CalibrationCheck", "calibrate"),
    "core.errors": ("Interrupted", "UserError"),
    "core.metrics": ("Evaluation", "SingleLabelEvaluation"),
    "core.multi_label_metrics": ("MultiLabelEvaluation",),
    "core.out_of_distribution": ("OutOfDistribution",),
    "core.robustness": ("Robustness",),
    "core.serving_benchmark": ("ServingBenchmark",),
    "data.sources": ("Source", "open_source"),
    "inputs": ("BandsPreprocess", "ImagePreprocess", "Preprocess", "SignalPreprocess"),
    "model.arch": ("Arch",),
    "model.create": ("create_model", "load_from_hub"),
    "model.layers": ("BatchNormalization",),
    "model.network": ("ResidualNetwork",),
    "model.weights.published": ("PublishedWeights", "WeightsTable", "list_weights"),
    "model.zoo": ("list_models",),
    "serving.export": ("export_model",),
    "serving.predictor": ("Prediction", "Predictor"),
    "training.evaluation": ("evaluate_run",),
    "training.run": ("Run", "load_run"),
    "workflows.audit": ("AuditResult", "audit"),
    "workflows.benchmark": ("BenchmarkResult", "benchmark"),
    "workflows.compare": ("CompareResult", "compare"),
    "workflows.convert": ("ConvertResult", "convert"),
    "workflows.demo": ("DemoServer", "demo"),
    "workflows.evaluate": ("EvaluateResult", "evaluate"),
    "workflows.export": ("export",),
    "workflows.plan": ("Plan", "plan"),
    "workflows.predict": ("predict",),
    "workflows.prepare": ("PrepareResult", "prepare"),
    "workflows.preview": ("preview",),
    "workflows.prove": ("ProveResult", "prove"),
    "workflows.push": ("push_to_hub",),
    "workflows.serve_data": ("DataService", "serve_data"),
    "workflows.train": ("TrainResult", "train", "train_and_evaluate"),
}
_HOMES = {name: f"resnet_tf.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "Arch",
    "AuditResult",
    "BandsPreprocess",
    "BatchNormalization",
    "BenchmarkResult",
    "Calibration",
    "CalibrationCheck",
    "CompareResult",
    "Config",
    "ConvertResult",
    "DataService",
    "DemoServer",
    "EvaluateResult",
    "Evaluation",
    "ImagePreprocess",
    "Interrupted",
    "MultiLabelEvaluation",
    "OutOfDistribution",
    "Plan",
    "Prediction",
    "Predictor",
    "PrepareResult",
    "Preprocess",
    "ProveResult",
    "PublishedWeights",
    "ResidualNetwork",
    "Robustness",
    "Run",
    "ServingBenchmark",
    "SignalPreprocess",
    "SingleLabelEvaluation",
    "Source",
    "TrainResult",
    "UserError",
    "WeightsTable",
    "audit",
    "benchmark",
    "calibrate",
    "compare",
    "convert",
    "create_model",
    "demo",
    "evaluate",
    "evaluate_run",
    "export",
    "export_model",
    "list_configs",
    "list_models",
    "list_weights",
    "load_config",
    "load_from_hub",
    "load_run",
    "open_source",
    "plan",
    "predict",
    "prepare",
    "preview",
    "prove",
    "push_to_hub",
    "serve_data",
    "train",
    "train_and_evaluate",
]


_check_once = functools.cache(check_installation)  # it reads the metadata of installed packages, for 14 ms


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resnet_tf' has no attribute {name!r}")
    _check_once()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


def _register_with_keras() -> None:
    """Import the modules that register the classes of saved networks, so that `keras.saving.load_model` knows them."""
    import keras

    if keras.config.backend() == "tensorflow":  # any other is refused on first use, see `check_installation`
        for module in ("initializers", "layers", "network"):
            importlib.import_module(f"resnet_tf.model.{module}")


turn_on_onednn()  # before TensorFlow is imported

# Importing Keras here would make `--help` wait for TensorFlow.
call_after_import("keras", _register_with_keras)
