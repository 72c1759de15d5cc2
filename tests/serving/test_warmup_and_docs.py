"""Input files of TensorFlow Serving, parsed with its protocol buffers: warmup requests and configurations."""

from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from resnet_tf.inputs import ImagePreprocess
from resnet_tf.serving.export import export_model
from resnet_tf.serving.warmup import WARMUP, write_warmup
from resnet_tf.training.run import load_run

DOCS = Path(__file__).parents[2] / "docs" / "serving"


@pytest.mark.parametrize("default", ["serving_default", "images"])
def test_warmup_requests_match_the_signatures(tiny_run, tmp_path, default):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = export_model(load_run(tiny_run), tmp_path, default_signature=default)
    signatures = tf.saved_model.load(str(path)).signatures
    seen = []
    for record in tf.data.TFRecordDataset(str(path / "assets.extra" / "tf_serving_warmup_requests")):
        request = logs.PredictionLog.FromString(record.numpy()).predict_log.request
        ((name, value),) = request.inputs.items()
        outputs = signatures[request.model_spec.signature_name](**{name: tf.make_ndarray(value)})
        assert outputs["logits"].shape[0] in (1, 8)
        seen.append((request.model_spec.signature_name, name))
    expected = [("serving_default", "image_bytes"), ("images", "images")]
    if default == "images":
        expected = [("image_bytes", "image_bytes"), ("serving_default", "images"), ("images", "images")]
    assert seen == expected * 2
    assert set(signatures) - {name for name, _ in seen} == {"classify", "features", "explain"}


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("serving_default", [("serving_default", "image_bytes"), ("images", "images")]),
        ("images", [("image_bytes", "image_bytes"), ("serving_default", "images"), ("images", "images")]),
    ],
)
def test_every_signature_that_returns_logits_has_a_warmup_request(default, expected, tmp_path):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    write_warmup(tmp_path, ImagePreprocess(size=(8, 8)), default=default)
    records = tf.data.TFRecordDataset(str(tmp_path / WARMUP)).as_numpy_iterator()
    requests = [logs.PredictionLog.FromString(record).predict_log.request for record in records]
    assert [(each.model_spec.signature_name, *each.inputs) for each in requests] == expected * 2


def test_the_model_config_names_two_versions():
    configs = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    parsed = text_format.Parse((DOCS / "models.config").read_text(), configs.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


# tensorflow_serving/servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto, which the
# package tensorflow-serving-api does not contain: message -> field -> (number, type).
_INT64, _BOOL, _STRING = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue", "string"
_MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": (1, _INT64),
        "batch_timeout_micros": (2, _INT64),
        "max_enqueued_batches": (3, _INT64),
        "num_batch_threads": (4, _INT64),
        "thread_pool_name": (5, ".google.protobuf.StringValue"),
        "pad_variable_length_inputs": (7, "bool"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, _STRING)},
    "MonitoringConfig": {"prometheus_config": (1, ".PrometheusConfig")},
}


def _message(name: str):
    file = descriptor_pb2.FileDescriptorProto(name="serving_configs.proto", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    plain = {
        "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
        _STRING: descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    }
    for message, fields in _MESSAGES.items():
        added = file.message_type.add(name=message)
        for field, (number, field_type) in fields.items():
            descriptor = added.field.add(
                name=field, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            )
            descriptor.type = plain.get(field_type, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE)
            if field_type not in plain:
                descriptor.type_name = field_type
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    descriptor_pool.Default().FindFileByName("google/protobuf/wrappers.proto").CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()


def test_batching_and_monitoring_configurations_are_valid():
    batching = text_format.Parse((DOCS / "batching.config").read_text(), _message("BatchingParameters"))
    assert batching.max_batch_size.value == 32
    assert batching.batch_timeout_micros.value == 2000
    monitoring = text_format.Parse((DOCS / "monitoring.config").read_text(), _message("MonitoringConfig"))
    assert monitoring.prometheus_config.enable


def test_the_containers_mount_existing_files():
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DOCS / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source == "./models" or (DOCS / source).is_file()
    flags = services["blue"]["command"]
    assert services["blue"]["command"] == services["green"]["command"]
    for flag in flags:
        name, _, value = flag.partition("=")
        assert name.startswith("--")
        assert not value.startswith("/config/") or (DOCS / Path(value).name).is_file()
    gateway = (DOCS / "gateway.conf").read_text()
    assert {name for name in services if f"server {name}:8501" in gateway} == {"blue", "green"}
