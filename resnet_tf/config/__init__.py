"""Configuration: the schema, loading and overrides, and the command line."""

from resnet_tf.config.loading import (
    CONFIG_FILE,
    absolute_paths,
    describe_keys,
    list_configs,
    load_config,
    override,
    parse_assignments,
)
from resnet_tf.config.schema import (
    AUTO_SIZE,
    AugmentConfig,
    Config,
    DataConfig,
    ExportConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
    TrainConfig,
    flatten,
    iterate_keys,
)

__all__ = [
    "AUTO_SIZE",
    "CONFIG_FILE",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "ExportConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RuntimeConfig",
    "TrainConfig",
    "absolute_paths",
    "describe_keys",
    "flatten",
    "iterate_keys",
    "list_configs",
    "load_config",
    "override",
    "parse_assignments",
]
