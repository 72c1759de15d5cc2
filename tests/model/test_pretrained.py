"""Published weights: the table against its source libraries, and downloads from a local server."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHARED_DATA, import_torch_zoo
from local_server import file_server

import resnet_tf
from resnet_tf.config import absolute_paths, load_config
from resnet_tf.core import downloads
from resnet_tf.core.class_names import CIFAR10, imagenet_labels, readable
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import holds_weights
from resnet_tf.inputs import ImagePreprocess, presets
from resnet_tf.model.create import convert_file, create_model
from resnet_tf.model.weights import download, readers
from resnet_tf.model.weights.mapping import to_torchvision
from resnet_tf.model.weights.pretrained import Pretrained
from resnet_tf.model.weights.published import PRETRAINED, get_pretrained, list_weights
from resnet_tf.model.zoo import MODELS
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.image_size import trained_size

PHOTOS = SHARED_DATA / "imagenet_sample"
ROWS = [(network, weights) for network, rows in PRETRAINED.items() for weights in rows]
CREATE = functools.partial(create_model, "resnet20", num_classes=10, input_shape=(32, 32, 3))


@pytest.fixture
def server():
    with file_server() as running:
        yield running


@pytest.fixture
def published(server, tmp_path, monkeypatch) -> Pretrained:
    """Return a row for resnet20 whose file is on the server, with an empty Keras cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    path = tmp_path / "resnet20.safetensors"
    readers.write_safetensors(path, to_torchvision(CREATE()), {})
    server.behavior.files["/w/resnet20.safetensors"] = path.read_bytes()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    inputs = (ImagePreprocess(size=(48, 48), crop_fraction=0.9), ImagePreprocess(size=(32, 32), crop_fraction=0.8))
    row = Pretrained(
        url=f"{server.url}/w/{path.name}",
        digest=f"sha256:{digest[:8]}",
        top1=90.0,
        citation="",
        license="MIT",
        inputs=inputs,
        labels=CIFAR10,
        num_classes=10,
    )
    monkeypatch.setitem(PRETRAINED, "resnet20", {"test/one": row})
    return row


def _cached(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "keras").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["test/one", "cifar10"])
def test_named_weights_are_fetched_once_and_bring_what_belongs_to_them(published, server, tmp_path, capsys, name):
    first, second = (CREATE(weights=name) for _ in range(2))
    assert server.asked == [("/w/resnet20.safetensors", None)]
    assert _cached(tmp_path) == ["resnet20.safetensors"]
    stored = readers.read(tmp_path / "resnet20.safetensors").arrays
    for model in (first, second):
        np.testing.assert_array_equal(model.get_layer("logits").kernel, stored["fc.weight"].T)
        assert model.labels == CIFAR10
        assert model.preprocess == ImagePreprocess(size=(32, 32), crop_fraction=0.8)
    assert create_model("resnet20", num_classes=10, weights=name).preprocess.crop_fraction == 0.9
    assert CREATE(weights=name, new_head=True).labels is None
    out, log = capsys.readouterr()
    assert out == "", "stdout belongs to results"
    assert log == f"downloading {published.url} to '{tmp_path / 'keras' / 'models' / 'resnet20.safetensors'}'\n"


def test_a_file_put_into_the_cache_by_hand_needs_no_network(published, server, tmp_path, monkeypatch):
    (tmp_path / "keras" / "models").mkdir(parents=True)
    monkeypatch.setenv("RESNET_TF_OFFLINE", "1")
    cached = re.escape(str(tmp_path / "keras" / "models" / "resnet20.safetensors"))
    with pytest.raises(UserError, match=rf"'{cached}' is missing, and RESNET_TF_OFFLINE .*: put {published.url} there"):
        CREATE(weights="test/one")
    (tmp_path / "resnet20.safetensors").rename(tmp_path / "keras" / "models" / "resnet20.safetensors")
    CREATE(weights="test/one")
    assert server.asked == []


def test_a_mirror_has_each_file_under_its_host_and_path(published, server, tmp_path, monkeypatch):
    here = published.url.removeprefix("http://")
    server.behavior.files = {f"/mirror/{here}": server.behavior.files["/w/resnet20.safetensors"]}
    monkeypatch.setenv("RESNET_TF_MIRROR", f"{server.url}/mirror/")
    CREATE(weights="test/one")
    assert server.asked == [(f"/mirror/{here}", None)]
    assert _cached(tmp_path) == ["resnet20.safetensors"]
    monkeypatch.setenv("RESNET_TF_MIRROR", "mirror.example")
    (tmp_path / "keras" / "models" / "resnet20.safetensors").unlink()
    with pytest.raises(UserError, match=r"RESNET_TF_MIRROR='mirror\.example' is not the URL of a mirror"):
        CREATE(weights="test/one")


def test_an_interrupted_download_is_continued_by_the_next_call(published, server, tmp_path):
    vars(server.behavior).update(cut_after=1000, ranges=False)
    with pytest.raises(UserError, match=r"ended after 1,000 of .* The next attempt continues where this one ended"):
        CREATE(weights="test/one")
    assert _cached(tmp_path) == ["resnet20.safetensors.part", "resnet20.safetensors.part.json"]
    server.asked.clear()
    vars(server.behavior).update(cut_after=None, ranges=True)
    CREATE(weights="test/one")
    assert server.asked == [("/w/resnet20.safetensors", "bytes=1000-")]
    assert _cached(tmp_path) == ["resnet20.safetensors"]


def test_a_continued_download_that_is_not_the_file_is_not_kept(published, server, tmp_path):
    models = tmp_path / "keras" / "models"
    vars(server.behavior).update(cut_after=1000, ranges=False)
    with pytest.raises(UserError, match="ended after"):
        CREATE(weights="test/one")
    (models / "resnet20.safetensors.part").write_bytes(b"x" * 1000)
    vars(server.behavior).update(cut_after=None, ranges=True)
    with pytest.raises(UserError, match="is not the published file: its sha256 begins with"):
        CREATE(weights="test/one")
    assert _cached(tmp_path) == []
    CREATE(weights="test/one")


def test_simultaneous_downloads_take_turns(published, server, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: download.fetch(published), range(4)))
    assert len(paths) == len(server.asked) == 1
    assert _cached(tmp_path) == ["resnet20.safetensors"]


def test_without_a_published_hash_that_of_the_server_is_verified(published, server, tmp_path, monkeypatch):
    row = dataclasses.replace(published, digest="", url=f"{server.url}/timm/r.tag/resolve/main/model.safetensors")
    monkeypatch.setitem(PRETRAINED["resnet20"], "test/one", row)

    def state(digest):
        headers = {downloads.STATED_DIGEST: f'"{digest}"'} if digest else {}
        server.behavior.redirects["/timm/r.tag/resolve/main/model.safetensors"] = published.url, headers

    for wrong, message in (("", "the server does not state its SHA-256"), ("0" * 64, "its sha256 begins with")):
        state(wrong)
        with pytest.raises(UserError, match=message):
            CREATE(weights="test/one")
        assert _cached(tmp_path) == []
    state(hashlib.sha256((tmp_path / "resnet20.safetensors").read_bytes()).hexdigest())
    CREATE(weights="test/one")
    assert _cached(tmp_path) == ["timm--r.tag.safetensors"]


def test_what_cannot_be_fetched_or_is_not_the_file_is_refused_and_not_kept(published, server, tmp_path, monkeypatch):
    def refused(message, **changes):
        monkeypatch.setitem(PRETRAINED["resnet20"], "test/one", dataclasses.replace(published, **changes))
        with pytest.raises(UserError, match=message):
            CREATE(weights="test/one")

    base = server.url
    refused("is not the published file: its sha256 begins with .*, not 00000000", digest="sha256:00000000")
    where = re.escape(str(tmp_path / "keras" / "models"))
    refused(rf"none.h5 could not be downloaded \(.*404.*\). Put the file at '{where}/none.h5'", url=f"{base}/none.h5")
    server.shutdown()
    server.server_close()
    refused(r"could not be downloaded \(.*refused.*, or pass the path of a copy as weights", url=f"{base}/other.h5")
    assert _cached(tmp_path) == []
    (tmp_path / "keras" / "models" / "resnet20.safetensors").write_bytes(b"something else")
    refused(rf"'{where}/resnet20.safetensors' is not the published file: .*; delete it to download it again")
    assert _cached(tmp_path) == ["resnet20.safetensors"], "what lay there is the user's"


def test_a_server_that_does_not_answer_is_given_up(published, monkeypatch):
    import socket

    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.h5"
        monkeypatch.setitem(PRETRAINED["resnet20"], "test/one", dataclasses.replace(published, url=url))
        with pytest.raises(UserError, match=r"could not be downloaded \(.*timed out"):
            CREATE(weights="test/one")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("network", "weights", "message"),
    [
        ("resnet50", "imagnet", "unknown weights 'imagnet' of resnet50: did you mean 'imagenet'"),
        ("resnet50", "keras", "there are torchvision/IMAGENET1K_V2, .*; 'keras' belongs to resnet50_v1, resnet101_v1"),
        ("resnet50", "cifar10", "there are torchvision/IMAGENET1K_V2, .*; or give a file"),
        ("wrn_16_4", "imagenet", "unknown weights 'imagenet' of wrn_16_4: there are none by name; or give a file"),
    ],
)
def test_unknown_names_are_answered_with_those_that_there_are(network, weights, message):
    with pytest.raises(UserError, match=message):
        get_pretrained(network, weights)


def test_imagenet_is_the_best_of_torchvision():
    assert list_weights("resnet50")[0].name == "torchvision/IMAGENET1K_V2"
    assert get_pretrained("resnet50", "imagenet").top1 == 80.858
    assert get_pretrained("resnet50_v1", "imagenet") == get_pretrained("resnet50_v1", "keras")
    assert get_pretrained("bit_r50x1", "imagenet") == get_pretrained("bit_r50x1", "timm/goog_in21k_ft_in1k")
    for wrong in ("resnet5", "", None, 5):
        with pytest.raises(UserError, match=r"unknown model|the name of a model is text"):
            list_weights(wrong)
    with pytest.raises(UserError, match=r"no network matches 'resnet5\?x\*'; did you mean"):
        list_weights("resnet5?x*")


# Networks without published weights: those of papers that published none, and those of this package.
UNPUBLISHED = {"resnet200_v2", "resnet164_v2", "resnet1001_v2", "resnet20_w8"}
UNPUBLISHED |= {
    name for name in MODELS if name.startswith(("plain", "wrn", "resnet8_")) or name.endswith(("_1d", "article"))
}


def test_every_network_with_published_weights_has_a_row():
    assert set(MODELS) - set(PRETRAINED) == UNPUBLISHED
    assert str(resnet_tf.list_weights("plain20")) == "no published weights"


def test_the_list_is_a_table_that_fits_a_terminal():
    rows = resnet_tf.list_weights()
    header, *lines = str(rows).splitlines()
    assert max(map(len, (header, *lines))) <= 80
    assert [(row.network, row.name) for row in rows] == sorted(ROWS, key=lambda row: list(MODELS).index(row[0]))
    assert sum(f"  {row.name} " in line for row in rows for line in lines) >= len(rows)
    line = next(line for line in lines if line.startswith("  timm/goog_teacher_in21k_ft_in1k_384 "))
    assert line.split() == ["timm/goog_teacher_in21k_ft_in1k_384", "83.834", "384", "945", "Apache-2.0"]
    sources = {row.name.split("/")[0]: row.citation for row in rows}
    assert lines[-len(sources) :] == [f"  {source}: {page}" for source, page in sources.items()]
    (unpublished,) = (row for row in resnet_tf.list_weights("bit_r50x1") if row.top1 is None)
    found = next(line.split()[1:] for line in lines if f" {unpublished.name} " in line)
    assert found == ["224", "273", "Apache-2.0"]


def test_rows_state_what_the_files_and_publishers_do(command):
    row = resnet_tf.list_weights("resnet20")[0]
    model = CREATE()
    assert row.size == 4 * model.count_params()
    assert (row.image_sizes, row.num_classes, row.license) == (((32, 32),), 10, "BSD-2-Clause")
    outcome = command("weights", "resnet20", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == json.loads(json.dumps(row.to_dict()))
    assert command("weights", "resnet20").out == f"{resnet_tf.list_weights('resnet20')}\n"


@pytest.mark.parametrize(("network", "weights"), ROWS)
def test_rows_are_complete(network, weights):
    row = PRETRAINED[network][weights]
    algorithm, _, digits = row.digest.partition(":")
    assert network in MODELS
    is_hub = row.url.startswith("https://huggingface.co/timm/")  # which states the SHA-256 with each download
    assert len(digits) == (0 if is_hub else {"md5": 32, "sha256": 8}[algorithm])
    assert row.url.startswith("https://")
    assert row.num_classes == (10 if "cifar" in weights else 21_843 if weights.endswith("in21k") else 1000)
    assert len(row.labels) == (0 if row.num_classes == 21_843 else row.num_classes)
    assert 65 < row.top1 < 95 if row.labels else row.top1 is None
    assert row.license in ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-NC-4.0", "MIT")
    assert len({other.file_name for others in PRETRAINED.values() for other in others.values()}) == len(ROWS)


@pytest.mark.parametrize("network", [name for name, rows in PRETRAINED.items() if "keras" in rows])
def test_keras_rows_are_those_of_keras(network):
    from keras.src.applications import resnet

    row = get_pretrained(network, "keras")
    theirs = row.file_name.split("_")[0]
    assert theirs == network.replace("_v1", "").replace("_v2", "v2")
    assert row.url == f"{resnet.BASE_WEIGHTS_PATH}{theirs}_weights_tf_dim_ordering_tf_kernels.h5"
    assert row.digest == f"md5:{resnet.WEIGHTS_HASHES[theirs][0]}"


@pytest.mark.parametrize(("convention", "module"), [(presets.KERAS_V1, "resnet"), (presets.KERAS_V2, "resnet_v2")])
def test_input_conventions_are_those_of_keras(convention, module):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3)).astype("float32")
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    found = convention.normalize(tf.constant(pixels / 255)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max() / 100)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "weights"), [row for row in ROWS if row[1].startswith("torchvision")])
def test_torchvision_rows_are_those_of_torchvision(network, weights):
    models = import_torch_zoo("torchvision").models
    row, theirs = PRETRAINED[network][weights], models.get_model_weights(network)[weights.split("/")[1]]
    crop = theirs.transforms()
    (found,) = row.inputs
    assert (row.url, row.top1) == (theirs.url, theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"])
    assert round(found.size[0] / found.crop_fraction) == crop.resize_size[0]
    assert (found.size[0], found.interpolation) == (crop.crop_size[0], crop.interpolation.value)
    assert (list(found.mean), list(found.std)) == (crop.mean, crop.std)
    assert row.labels == tuple(theirs.meta["categories"])


@pytest.mark.slow
@pytest.mark.parametrize(("network", "weights"), [row for row in ROWS if row[1].startswith("timm")])
def test_timm_rows_are_those_of_timm(network, weights):
    timm = import_torch_zoo("timm")
    config = timm.models.get_pretrained_cfg(f"{_timm_name(network)}.{weights.split('/')[1]}")
    row = PRETRAINED[network][weights]
    hub = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    assert row.url == (config.url or hub).replace("/rwightman/", "/huggingface/")
    assert (row.license.lower(), row.num_classes) == (config.license, config.num_classes)
    trained = (config.input_size[1], config.crop_pct)
    tested = ((config.test_input_size or config.input_size)[1], config.test_crop_pct or config.crop_pct)
    for found, (size, fraction) in zip(row.inputs, dict.fromkeys((tested, trained)), strict=True):
        assert found.size == (size, size)
        assert round(size / found.crop_fraction) == int(size / fraction)
        assert (found.mean, found.std, found.interpolation) == (config.mean, config.std, config.interpolation)


def _timm_name(network):
    if network.startswith("bit_r"):
        return f"resnetv2_{network[5:]}_bit"
    return f"resnetrs{network[9:]}" if network.startswith("resnet_rs") else network.replace("_d", "d")


def test_the_labels_are_those_of_imagenet():
    assert len(set(imagenet_labels())) == 1000
    assert [imagenet_labels()[index] for index in (0, 207, 281, 999)] == [
        "tench",
        "golden retriever",
        "tabby",
        "toilet tissue",
    ]
    assert readable(["n01440764", "cat"]) == ("tench", "cat")


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the ImageNet photos are not beside the checkout")
def test_labels_and_identifiers_agree_with_the_photos_names():
    """One photo of every fifth class, named after it by the people who collected them."""
    names = [file.stem.split("_", 1) for file in sorted(PHOTOS.glob("*.JPEG"))]
    labels = imagenet_labels()[::5]
    assert readable([identifier for identifier, _ in names]) == labels
    assert [name.replace("_", " ").lower() for _, name in names] == [label.lower() for label in labels]


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".safetensors"])
def test_converted_files_keep_what_belongs_to_the_weights(published, tmp_path, suffix):
    wanted = ImagePreprocess(size=(48, 48), mean=(0.1, 0.2, 0.3), channel_order="bgr")
    PRETRAINED["resnet20"]["test/one"] = dataclasses.replace(published, inputs=(wanted,))
    convert_file("test/one", "resnet20", tmp_path / f"there{suffix}", num_classes=10)
    convert_file(tmp_path / f"there{suffix}", "resnet20", tmp_path / "back.safetensors", num_classes=10)
    model = CREATE(weights=tmp_path / "back.safetensors")
    assert model.preprocess == dataclasses.replace(wanted, size=(32, 32))
    assert model.labels == CIFAR10
    if suffix == ".keras":
        loaded = keras.models.load_model(tmp_path / "there.keras")
        np.testing.assert_array_equal(loaded.get_layer("logits").kernel, model.get_layer("logits").kernel)
    if suffix == ".weights.h5":
        CREATE().load_weights(tmp_path / "there.weights.h5")  # Keras's own reader


def test_a_folder_with_the_name_of_published_weights_is_not_taken_for_them(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10" / "train" / "cat").mkdir(parents=True)
    assert CREATE(weights="cifar10").labels == CIFAR10
    config = load_config("cifar10_resnet20", ["model.weights=cifar10"])
    assert absolute_paths(config).model.weights == "cifar10"
    assert trained_size(config) == 48
    with pytest.raises(UserError, match=r"unknown weights 'imagenet' of resnet20"):
        CREATE(weights="imagenet")
    monkeypatch.chdir(tmp_path / "cifar10")
    with pytest.raises(UserError, match=r"'train' is not a model exported by resnet_tf"):
        CREATE(weights="train")


def test_exports_and_checkpoints_have_precedence_over_published_weights(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config("cifar10_resnet20", ["model.weights=cifar10"])
    files = ("cifar10/assets.extra/resnet_tf.json", "cifar10/2/assets.extra/resnet_tf.json", "cifar10.index", "cifar10")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
        assert holds_weights(tmp_path / "cifar10")
        assert absolute_paths(config).model.weights == str(tmp_path / "cifar10")
        with pytest.raises(UserError, match=r"cifar10"):
            CREATE(weights="cifar10")
        shutil.rmtree(tmp_path / "cifar10", ignore_errors=True)
        (tmp_path / "cifar10.index").unlink(missing_ok=True)


def test_an_export_takes_up_what_belongs_to_the_weights(published, tmp_path):
    PRETRAINED["resnet20"]["test/one"] = dataclasses.replace(
        published, inputs=(dataclasses.replace(presets.KERAS_V1, crop_fraction=1.0),)
    )
    model = CREATE(weights="test/one")
    predictor = Predictor(export_model(model, tmp_path / "export"))
    assert (predictor.labels, predictor.preprocess) == (CIFAR10, model.preprocess)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    prepared = keras.applications.resnet.preprocess_input(image[np.newaxis].astype("float32"))
    answer = predictor.predict_batch([tf.io.encode_png(image).numpy()])["logits"]
    np.testing.assert_allclose(answer, model(prepared, training=False), rtol=1e-4, atol=1e-4)


def test_corrupt_metadata_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    for metadata in ({"preprocess": {"nonsense": 1}}, {"preprocess": [1]}, {"labels": "cat"}, {"labels": [1]}):
        readers.write_safetensors(path, to_torchvision(CREATE()), metadata)
        with pytest.raises(UserError, match=r"the metadata of the weights in '.*' is corrupt"):
            CREATE(weights=path)


def test_the_metadata_of_a_file_is_read_once(tmp_path, monkeypatch):
    path, calls = tmp_path / "weights.safetensors", []
    readers.write_safetensors(path, to_torchvision(CREATE()), {"labels": list(CIFAR10)})
    read = readers.read_metadata
    monkeypatch.setattr(readers, "read_metadata", lambda each: calls.append(each) or read(each))
    assert CREATE(weights=path).labels == CIFAR10
    assert calls == [path]
