"""Networks on the Hugging Face Hub: its real client against a local server that speaks its protocol."""

import contextlib
import dataclasses
import io
import json
import logging
import math
import pickle
import zipfile

import numpy as np
import pytest
from conftest import import_torch_zoo
from hub_server import hub_server
from safetensors.numpy import load as load_safetensors

import resnet_tf
from resnet_tf.config import absolute_paths, override
from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.class_names import imagenet_labels
from resnet_tf.core.errors import UserError
from resnet_tf.inputs import ImagePreprocess, pixels
from resnet_tf.model.create import create_model, load_from_hub
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.weights import hub, hub_upload
from resnet_tf.model.weights.hub import HubAddress
from resnet_tf.model.weights.hub_settings import from_timm, is_in_timm, timm_name, to_timm, zoo_name
from resnet_tf.model.zoo import MODELS
from resnet_tf.training.run import create_network, load_run
from resnet_tf.workflows.push import push_to_hub

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

# The client of huggingface_hub passes bytes to its HTTP library in a way that this calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
LABELS = ("ant", "bee", "<cat>")
THRESHOLDS = (0.25, 0.5, 0.75)
CALIBRATION = Calibration(temperatures=(1.5, 2.0, 0.5), biases=(0.1, 0.0, -0.1))
PREPROCESS = ImagePreprocess(size=(32, 32), crop_fraction=0.8, interpolation="bicubic", mean=(0.1, 0.2, 0.3))
CONFIG = {
    "architecture": "resnet18",
    "num_classes": 3,
    "num_features": 512,
    "global_pool": "avg",
    "label_names": ["n1", "n2", "n3"],
    "label_descriptions": {"n1": "ant", "n2": "bee"},
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "custom_load": False,
        "input_size": [3, 32, 32],
        "test_input_size": [3, 48, 48],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "num_classes": 3,
    },
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub_server() as running:
        _set_endpoint(monkeypatch, running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("RESNET_TF_OFFLINE", raising=False)
        yield running


def _set_endpoint(monkeypatch, url):
    """Set the Hub of the client, which reads its variables (HF_ENDPOINT, ...) when it is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}{template}")


@pytest.fixture(scope="module")
def network():
    """Return a network of this package with preprocessing and labels."""
    model = create_model("resnet20", num_classes=3, input_shape=(32, 32, 3))
    model.preprocess, model.labels = PREPROCESS, LABELS
    return model


@pytest.fixture(scope="module")
def timm_files(tmp_path_factory):
    """Return the files of a repository of timm."""
    directory = tmp_path_factory.mktemp("timm")
    resnet_tf.convert(_saved(directory), "resnet18", directory / "model.safetensors", num_classes=3)
    content = (directory / "model.safetensors").read_bytes()
    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": _plain(content)}


def _saved(directory):
    path = directory / "resnet18.weights.h5"
    create_model("resnet18", num_classes=3, input_shape=(32, 32, 3)).save_weights(path)
    return path


def _plain(content):
    """Return a file of safetensors without metadata, as timm's."""
    from safetensors.numpy import save

    return save(load_safetensors(content))


def _images(size=32):
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)


def _refused(message, address="hf://user/repo", load=load_from_hub):
    with pytest.raises(UserError, match=message) as caught:
        load(address)
    assert "\n" not in str(caught.value)


def test_a_network_is_stored_and_loaded_with_all_that_belongs_to_it(server, network):
    url = push_to_hub(network, "hf://user/repo", license="apache-2.0")
    assert url.startswith(f"{server.url}/user/repo/commit/")
    repository = server.repositories["user/repo"]
    files = repository.commits[repository.refs["main"]]
    assert sorted(files) == [".gitattributes", "README.md", "model.safetensors", "resnet_tf.json"]
    card = files["README.md"].decode()
    assert card.startswith(
        '---\nlibrary_name: keras\ntags:\n- image-classification\n- resnet_tf\nlicense: "apache-2.0"\n---'
    )
    assert 'resnet_tf.load_from_hub("hf://user/repo")' in card
    assert "ant, bee, &lt;cat&gt;" in card
    for found in (
        load_from_hub("hf://user/repo"),
        create_model("resnet20", num_classes=3, input_shape=(32, 32, 3), weights="hf://user/repo"),
    ):
        assert (found.labels, found.preprocess, found.arch) == (LABELS, PREPROCESS, network.arch)
        np.testing.assert_array_equal(found(_images(), training=False), network(_images(), training=False))


def test_thresholds_and_calibration_are_those_of_the_loaded_head(server, tmp_path):
    model = create_model("resnet8_w32", num_classes=3, input_shape=(32, 32, 3))
    model.labels, model.thresholds, model.calibration = LABELS, THRESHOLDS, CALIBRATION
    push_to_hub(model, "hf://user/repo")
    found = load_from_hub("hf://user/repo")
    assert (found.thresholds, found.calibration) == (THRESHOLDS, CALIBRATION)
    for options in ({"new_head": True}, {"num_classes": 0}, {"features": ("stage2",)}):
        other = load_from_hub("hf://user/repo", **options)
        assert (other.thresholds, other.calibration) == (None, UNCALIBRATED)


def test_the_calibration_of_a_repository_is_that_of_its_own_weights(server):
    model = create_model("resnet8_w32", num_classes=3, input_shape=(32, 32, 3))
    model.labels, model.calibration = LABELS, CALIBRATION
    push_to_hub(model, "hf://user/repo")
    repository = server.repositories["user/repo"]
    files = repository.commits[repository.refs["main"]]
    server.add("user/other", {**files, "ema/best.safetensors": files["model.safetensors"]})
    assert load_from_hub("hf://user/other/model.safetensors").calibration == CALIBRATION
    assert load_from_hub("hf://user/other/ema/best.safetensors").calibration == UNCALIBRATED


def test_a_network_without_stem_is_stored(server):
    model = create_model("resnet_article", num_classes=3, input_shape=(16, 16, 1))
    push_to_hub(model, "hf://user/repo")
    found = load_from_hub("hf://user/repo")
    inputs = _images(16)[..., :1]
    np.testing.assert_array_equal(found(inputs, training=False), model(inputs, training=False))


def test_options_of_the_architecture_are_stored(server):
    model = create_model("resnet20", num_classes=0, input_shape=(16, 16, 1), activation="silu", shortcut="projection")
    push_to_hub(model, "hf://user/repo")
    found = load_from_hub("hf://user/repo")
    assert (found.arch, found.input_shape, found.output_shape) == (model.arch, (None, 16, 16, 1), (None, 64))
    new = load_from_hub("hf://user/repo", num_classes=5, new_head=True, input_shape=(32, 32, 1), dropout=0.5)
    assert (new.output_shape, new.arch.dropout) == ((None, 5), 0.5)


def test_networks_that_pytorch_lacks_keep_their_own_names(server):
    model = create_model("wrn_16_4", num_classes=3, input_shape=(32, 32, 3))
    push_to_hub(model, "hf://user/repo")
    found = load_from_hub("hf://user/repo")
    np.testing.assert_array_equal(found(_images(), training=False), model(_images(), training=False))


def test_repositories_of_timm_are_loaded_by_their_configuration(server, timm_files):
    server.add("timm/resnet18.a1", timm_files)
    model = load_from_hub("hf://timm/resnet18.a1")
    assert (model.zoo_name, model.input_shape, model.output_shape) == ("resnet18", (None, 48, 48, 3), (None, 3))
    assert model.labels == ("ant", "bee", "n3")
    expected = ImagePreprocess(
        size=(48, 48), crop_fraction=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.25,) * 3
    )
    assert model.preprocess == expected
    stored = load_safetensors(timm_files["model.safetensors"])
    np.testing.assert_array_equal(model.get_layer("logits").kernel, stored["fc.weight"].T)
    trained = create_model("resnet18", num_classes=3, input_shape=(32, 32, 3), weights="hf://timm/resnet18.a1")
    assert trained.preprocess == dataclasses.replace(expected, size=(32, 32), crop_fraction=32 / 35)  # not 36
    features = load_from_hub("hf://timm/resnet18.a1", num_classes=0, input_shape=(32, 32, 3))
    assert (features.labels, features.output_shape) == (None, (None, 512))
    with pytest.raises(UserError, match=r"has weights of resnet18, with .*; resnet34 is another network"):
        create_model("resnet34", num_classes=3, input_shape=(32, 32, 3), weights="hf://timm/resnet18.a1")


def test_a_repository_without_settings_takes_the_name_of_the_network(server, timm_files):
    server.add("user/repo", {"model.safetensors": timm_files["model.safetensors"]})
    _refused(
        r"has neither resnet_tf.json nor config.json; name the network: create_model\(NAME, weights='hf://user/repo'\)"
    )
    model = create_model("resnet18", num_classes=3, input_shape=(32, 32, 3), weights="hf://user/repo")
    assert model.preprocess.interpolation == "bilinear", "the preprocessing of the library of the names"


def test_revisions_are_branches_tags_and_commits(server, network):
    first = push_to_hub(network, "hf://user/repo").rsplit("/", 1)[1]
    changed = create_model("resnet20", num_classes=3, input_shape=(32, 32, 3))
    changed.labels = ("x", "y", "z")
    push_to_hub(changed, "hf://user/repo@next", message="other labels")
    server.repositories["user/repo"].refs["v1"] = first
    for revision, labels in (("", LABELS), ("@next", changed.labels), ("@v1", LABELS), (f"@{first}", LABELS)):
        assert load_from_hub(f"hf://user/repo{revision}").labels == labels
    _refused("'user/repo' has no revision 'v2'", "hf://user/repo@v2")


def test_all_files_are_of_one_commit(server, network, monkeypatch):
    push_to_hub(network, "hf://user/repo")
    fetch = hub._Repository.fetch

    def push_in_between(self, name, largest):
        found = fetch(self, name, largest)
        if name == "resnet_tf.json":
            server.add("user/repo", {"model.safetensors": b"of the next commit"})
        return found

    monkeypatch.setattr(hub._Repository, "fetch", push_in_between)
    model = create_model("resnet20", num_classes=3, input_shape=(32, 32, 3), weights="hf://user/repo")
    np.testing.assert_array_equal(model.get_layer("logits").kernel, network.get_layer("logits").kernel)


def test_what_is_missing_is_named(server, timm_files):
    _refused(rf"{server.url} has no repository 'user/repo'; if it is a private one, run `hf auth login`")
    server.add("user/repo", {"config.json": timm_files["config.json"]})
    _refused(r"^hf://user/repo has no model.safetensors or pytorch_model.bin$")
    _refused(r"^hf://user/repo/other.safetensors has no other.safetensors$", "hf://user/repo/other.safetensors")
    server.repositories["user/repo"].private = True
    _refused(rf"the authors of 'user/repo' grant access at {server.url}/user/repo; then run `hf auth login`")
    server.status = 418
    _refused(rf"resnet_tf.json of {server.url}/user/repo could not be downloaded \(.*418")


def test_a_file_is_named_by_its_path(server, timm_files):
    server.add("user/repo", {**timm_files, "ema/best.safetensors": timm_files["model.safetensors"]})
    assert load_from_hub("hf://user/repo@main/ema/best.safetensors").zoo_name == "resnet18"


@pytest.mark.parametrize(
    "text",
    [
        *("hf://", "hf://user", "hf://user/", "hf:///repo", "hf://user/repo@", "hf://user/../x.bin", "hf://../repo"),
        *("hf://user/repo@a b", "hf://user/repo@main/../x.bin", "hf://user/repo//x.bin", "hf://user/re po"),
        *("hf://user/repo\n", "hf://user/répo", "hf://user/repo@..", "hf://user/repo/weights.exe", "hf://-/x"),
        *("hf://user/repo@main/", "hf://u--s/repo"),
    ],
)
def test_texts_that_are_no_addresses_are_refused(text):
    with pytest.raises(
        UserError, match=r"is no address such as 'hf://user/repo'|cannot read weights from|has no network"
    ):
        HubAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://timm/resnet50.a1_in1k", ("timm/resnet50.a1_in1k", None, "")),
        ("hf://user/repo@refs/pr/1", ("user/repo", "refs/pr/1", "")),
        ("hf://user/repo@v1.0/a/b.safetensors", ("user/repo", "v1.0", "a/b.safetensors")),
        ("hf://user/repo/b.pth", ("user/repo", None, "b.pth")),
    ],
)
def test_addresses_have_repository_revision_and_file(text, parts):
    address = HubAddress.parse(text)
    assert dataclasses.astuple(address) == parts
    assert str(address) == text


def _changed(**changes):
    """Return the configuration with changes, whose names have `__` between the levels."""
    config = json.loads(json.dumps(CONFIG))
    for name, value in changes.items():
        *outer, key = name.split("__")
        level = config[outer[0]] if outer else config
        level[key] = value
        if value is ...:
            del level[key]
    return json.dumps(config).encode()


HOSTILE = {
    "no JSON": (b"{", "config.json' is not JSON|is not JSON"),
    "no object": (b"[1]", "is not a JSON object"),
    "nested": (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", "is not JSON"),
    "duplicate keys": (b'{"architecture": "resnet18", "architecture": "resnet34"}', "is not JSON"),
    "too large": (b" " * 2**24 + b"{}", "has 16,777,218 bytes, more than 16,777,216"),
    "no architecture": (_changed(architecture=...), "config.json: config has no 'architecture'"),
    "path": (_changed(architecture="../../etc/passwd"), "'../../etc/passwd' of timm is none of this package"),
    "list": (_changed(architecture=["resnet18"]), "architecture is a list, not a string"),
    "unknown": (_changed(architecture="resnet18_evil"), "'resnet18_evil' of timm is none of this package; it has"),
    "code": (_changed(model_args={"block": "__import__('os')"}), "timm's argument 'block'="),
    "channels": (_changed(model_args={"in_chans": "1"}), "model_args.in_chans is a string, not an integer"),
    "no channels": (_changed(model_args={"in_chans": 0}), "input_shape=.* is not"),
    "stride": (_changed(model_args={"output_stride": 4}), "argument output_stride takes 8, 16 or 32, got 4"),
    "pooling": (_changed(global_pool="catavgmax"), "argument 'global_pool'='catavgmax' has no"),
    "many classes": (_changed(num_classes=10**12), "num_classes takes 0 to 1048576"),
    "negative": (_changed(num_classes=-1), "num_classes takes 0 to 1048576"),
    "wide": (_changed(num_classes=10**30), "integer beyond 64 bits"),
    "true": (_changed(num_classes=True), "num_classes is true or false|num_classes takes"),
    "labels": (_changed(label_names=["a"] * 4), "4 labels for 3 classes"),
    "label types": (_changed(label_names=[1, 2, 3]), "label_names"),
    "label keys": (_changed(label_names={"0": "a", "1": "b", "7": "c"}), "label_names has other keys than 0 to 2"),
    "empty label": (_changed(label_names=["a", "b", ""]), "is empty"),
    "size": (_changed(pretrained_cfg__input_size=[3, 10**9, 10**9], pretrained_cfg__test_input_size=None), "size"),
    "zero size": (_changed(pretrained_cfg__input_size=[3, 0, 0], pretrained_cfg__test_input_size=None), "size"),
    "short size": (_changed(pretrained_cfg__input_size=[3]), "input_size has 1 element, not 3"),
    "mean": (_changed(pretrained_cfg__mean=[0.5, "x", 0.5]), "mean"),
    "means": (_changed(pretrained_cfg__mean=[0.5] * 4), "mean"),
    "std": (_changed(pretrained_cfg__std=[0.0, 0.1, 0.1]), "std"),
    "crop": (_changed(pretrained_cfg__test_crop_pct=17.0), "crop_fraction"),
    "tiny crop": (_changed(pretrained_cfg__test_crop_pct=1e-320), "crop_fraction"),
    "mode": (_changed(pretrained_cfg__crop_mode="squash"), "crop_mode='squash'"),
    "interpolation": (_changed(pretrained_cfg__interpolation="\x1b[2J"), "interpolation="),
    "cfg": (_changed(pretrained_cfg=[1]), "pretrained_cfg is a list, not an object"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_configuration_is_refused_before_the_weights_are_fetched(server, timm_files, case):
    content, message = HOSTILE[case]
    server.add("user/repo", {**timm_files, "config.json": content})
    _refused(message)
    assert not any("blobs" in each or "model.safetensors" in each for each in server.asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet999"}, "resnet_tf.json: unknown model 'resnet999'"),
        ({"model": 5}, "model is int, not a string"),
        ({"arch": {"depths": [10**9]}}, "resnet_tf.json: depths"),
        ({"arch": {"depths": [1], "__class__": "x"}}, "not the fields of an Arch"),
        ({"input_shape": "x"}, "input_shape takes a list of sizes, got 'x'"),
        ({"input_shape": [32, 32, 10**9]}, "channel|input_shape"),
        ({"num_classes": 2}, "3 labels for 2 classes"),
        ({"preprocess": {"type": "os.system"}}, "unknown input type 'os.system'"),
    ],
)
def test_hostile_settings_of_this_package_are_refused(server, network, changes, message):
    push_to_hub(network, "hf://user/repo")
    repository = server.repositories["user/repo"]
    stored = json.loads(repository.commits[repository.refs["main"]]["resnet_tf.json"])
    server.add("user/repo", {"resnet_tf.json": json.dumps(stored | changes).encode()})
    _refused(message)


def _pickle(content, tensors=()):
    """Return a file of `torch.save`: the pickle of an object, and the bytes of its storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for number, each in enumerate(tensors):
            archive.writestr(f"archive/data/{number}", each)
    return file.getvalue()


class _Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_could_run_code_is_not_loaded(server, timm_files, capsys):
    harmful = _pickle(pickle.dumps({"conv1.weight": _Harmful()}, protocol=2))
    server.add("user/repo", {"config.json": timm_files["config.json"], "pytorch_model.bin": harmful})
    _refused("contains objects other than arrays, which are not loaded because they could run code: '.*print'")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.slow
def test_repositories_with_only_a_pickle_are_read(server, timm_files):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    arrays = load_safetensors(timm_files["model.safetensors"])
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, file)
    server.add("user/repo", {"config.json": timm_files["config.json"], "pytorch_model.bin": file.getvalue()})
    model = load_from_hub("hf://user/repo")
    np.testing.assert_array_equal(model.get_layer("logits").kernel, arrays["fc.weight"].T)


def test_an_interrupted_transfer_continues(server, network, monkeypatch):
    push_to_hub(network, "hf://user/repo")
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # of 10 MB, more than this file has
    server.cut_after = [100_000]
    with contextlib.suppress(UserError):  # the first releases of the client do not try again by themselves
        load_from_hub("hf://user/repo")
    found = load_from_hub("hf://user/repo")
    np.testing.assert_array_equal(found(_images(), training=False), network(_images(), training=False))
    assert server.ranges == [None, "bytes=100000-"]


def test_a_changed_file_in_the_cache_is_refused(server, network, tmp_path):
    push_to_hub(network, "hf://user/repo")
    load_from_hub("hf://user/repo")
    (blob,) = (path for path in (tmp_path / "cache").rglob("blobs/*") if len(path.name) == 64)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    _refused("model.safetensors is not the file on the Hub: its SHA-256 begins with .*; delete .* to download it again")


def test_a_file_of_unknown_size_is_not_downloaded(server, timm_files, monkeypatch):
    server.add("user/repo", timm_files)
    original = huggingface_hub.get_hf_file_metadata
    monkeypatch.setattr(
        huggingface_hub, "get_hf_file_metadata", lambda url: dataclasses.replace(original(url), size=None)
    )
    _refused(rf"^hf://user/repo: {server.url} does not state the size of config.json$")
    assert not any(each.startswith("GET") for each in server.asked)


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "RESNET_TF_OFFLINE"])
def test_offline_use_takes_the_cache_and_names_what_is_missing(server, network, tmp_path, monkeypatch, switch):
    push_to_hub(network, "hf://user/repo")
    load_from_hub("hf://user/repo")
    server.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", switch == "HF_HUB_OFFLINE")
    monkeypatch.setenv("RESNET_TF_OFFLINE", "1" if switch == "RESNET_TF_OFFLINE" else "0")
    assert load_from_hub("hf://user/repo").labels == LABELS
    _refused(
        rf"hf://user/other has neither .* in the cache '{tmp_path}/cache', and downloads are forbidden .*; fill the "
        rf"cache with a network, or download {server.url}/user/other/resolve/main/config.json and pass its path",
        "hf://user/other",
    )
    _refused(
        rf"has no model.safetensors or pytorch_model.bin in the cache .* {server.url}/user/other/resolve/v1/model",
        "hf://user/other@v1",
        load=lambda address: create_model("resnet20", num_classes=3, input_shape=(32, 32, 3), weights=address),
    )
    assert server.asked == []


def test_a_hub_that_cannot_be_reached_leaves_the_cache(server, network, monkeypatch, caplog):
    push_to_hub(network, "hf://user/repo")
    load_from_hub("hf://user/repo")
    _set_endpoint(monkeypatch, "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        assert load_from_hub("hf://user/repo").labels == LABELS
    assert "http://127.0.0.1:9 cannot be reached; the cached resnet_tf.json is used" in caplog.text
    _refused(r"resnet_tf.json of http://127.0.0.1:9/user/new could not be downloaded \(.*refused", "hf://user/new")


def test_what_the_hub_refuses_is_one_line(server, network):
    def push(address):
        push_to_hub(network, address)

    _refused(
        rf"{server.url} did not accept hf://forbidden/repo \(.*403.*\); `hf auth login` stores",
        "hf://forbidden/repo",
        push,
    )
    _refused("is a file; a network is stored in a repository: 'hf://user/repo'", "hf://user/repo/x.safetensors", push)
    with pytest.raises(UserError, match="push_to_hub takes a run or a network of create_model, got 5"):
        push_to_hub(5, "hf://user/repo")
    maps = create_model("resnet20", input_shape=(32, 32, 3), features=("stage1",))
    with pytest.raises(UserError, match="resnet20 returns feature maps; store the network with its head"):
        push_to_hub(maps, "hf://user/repo")


def test_a_card_that_is_there_stays(server, network):
    server.add("user/repo", {"README.md": b"mine"})
    push_to_hub(network, "hf://user/repo")
    repository = server.repositories["user/repo"]
    assert repository.commits[repository.refs["main"]]["README.md"] == b"mine"


def test_settings_for_timm_belong_to_the_network_that_is_there(server):
    """timm has no BGR order: the settings of an earlier network in RGB would compute other inputs."""
    network = create_model("resnet18", num_classes=3, input_shape=(32, 32, 3))
    network.labels = LABELS
    server.add("user/repo", {"config.json": b"{}"})
    repository = server.repositories["user/repo"]
    for order in ("bgr", "rgb", "bgr"):
        network.preprocess = dataclasses.replace(PREPROCESS, channel_order=order)
        push_to_hub(network, "hf://user/repo")
        files = repository.commits[repository.refs["main"]]
        assert ("config.json" in files) == (order == "rgb")
        assert {"README.md", "resnet_tf.json", "model.safetensors"} <= files.keys()


def test_commands_take_addresses(server, timm_files, command, tmp_path):
    server.add("timm/resnet18.a1", timm_files)
    target = tmp_path / "resnet18.weights.h5"
    outcome = command(
        "convert", "--from=hf://timm/resnet18.a1", "--model=resnet18", "--num-classes=3", f"--to={target}"
    )
    assert (outcome.code, outcome.out) == (0, f"{target}: resnet18, read as torchvision\n")
    assert command("push", "--workdir=nowhere", "--to=hf://user/repo").code == 2
    assert "--to is missing" in command("push", "--workdir=nowhere").err


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    _refused(r"hf:// needs the package huggingface_hub: pip install 'resnet_tf\[huggingface\]'")


def test_names_of_timm_map_to_one_network_each():
    shared = [name for name in MODELS if is_in_timm(name)]
    assert [zoo_name(timm_name(name)) for name in shared] == shared
    assert {"resnet50", "resnet50_d", "resnet_rs50", "bit_r50x1", "seresnext50_32x4d", "wide_resnet50_2"} <= set(shared)
    assert not {"resnet20", "plain18", "resnet50_v1", "resnet50_v2", "resnet18_1d", "wrn_16_4"} & set(shared)


def test_imagenet_classes_have_their_names():
    config = json.loads(_changed(num_classes=1000, label_names=..., label_descriptions=...))
    assert from_timm(config).labels == imagenet_labels()
    config["pretrained_cfg"]["tag"] = "in22k"
    assert from_timm(config).labels is None


MISSING = {
    "input_size": {"size": (48, 48), "channels": 3},  # that of the test
    "test_input_size": {"size": (32, 32)},
    "interpolation": {"interpolation": "bicubic"},
    "crop_pct": {"crop_fraction": 1.0},  # that of the test
    "test_crop_pct": {"crop_fraction": 48 / 53},
    "crop_mode": {},
    "mean": {"mean": (0.485, 0.456, 0.406)},
    "std": {"std": (0.229, 0.224, 0.225)},
    "num_classes": {},
    "tag": {},
}


@pytest.mark.parametrize("value", [..., None], ids=["missing", "null"])
@pytest.mark.parametrize("name", [*MISSING, "all"])
def test_missing_fields_have_the_defaults_of_timm(name, value):
    names = MISSING if name == "all" else [name]
    changes = {f"pretrained_cfg__{each}": value for each in names}
    content = json.loads(_changed(**{"pretrained_cfg__interpolation": "bilinear", **changes}))
    settings = from_timm(content)
    expected = ImagePreprocess(size=(48, 48), crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    expected = dataclasses.replace(expected, **MISSING.get(name, {}))
    if name == "all":
        expected = ImagePreprocess(size=(224, 224), interpolation="bicubic")
    assert settings.preprocesses[0] == expected
    assert settings.num_classes == 3


GRAY = {"model_args": {"in_chans": 1}, "pretrained_cfg__mean": [0.4, 0.5, 0.9]}  # input_size has three channels


def test_the_channels_are_those_of_timms_arguments():
    """Earlier versions of timm store the input size of the original weights; its `_parse_model_cfg` corrects it."""
    settings = from_timm(json.loads(_changed(**GRAY)))
    assert settings.input_shape == (48, 48, 1)
    for each in settings.preprocesses:
        assert (each.channels, each.mean, each.std) == (1, (pytest.approx(0.6),), (0.25,))
    settings = from_timm(json.loads(_changed(model_args={"in_chans": 4})))
    assert (settings.input_shape, settings.preprocesses) == ((32, 32, 4), ())


@pytest.mark.slow
def test_the_channels_of_timms_arguments_are_those_that_timm_resolves():
    timm = import_torch_zoo("timm")
    from timm.data.model_config import resolve_input_data_config
    from timm.models._hub import _parse_model_cfg

    found = from_timm(json.loads(_changed(**GRAY))).preprocesses[0]
    stored, name, arguments = _parse_model_cfg(json.loads(_changed(**GRAY)), {})
    theirs = resolve_input_data_config(timm.create_model(name, **arguments), pretrained_cfg=stored, use_test_size=True)
    assert [found.channels, *found.size] == list(theirs["input_size"])
    assert (found.mean, found.std) == (theirs["mean"], theirs["std"])


@pytest.mark.parametrize(("stride", "arguments"), [(0, None), (32, None), (16, {"output_stride": 16}), (4, ...)])
def test_the_output_stride_is_exchanged_with_timm(stride, arguments):
    """timm's ResNet takes 8, 16 and 32."""
    arch = dataclasses.replace(MODELS["resnet18"], output_stride=stride)
    content = to_timm(Metadata("resnet18", arch, PREPROCESS), 3, first_conv="conv1", classifier="fc")
    if arguments is ...:
        assert content is None
    else:
        assert content.get("model_args") == arguments
        assert from_timm(content).arch == dataclasses.replace(arch, output_stride=stride % 32)
        assert from_timm(content).knobs == (arguments or {})


def test_a_configuration_without_a_number_of_classes_has_1000():
    nothing = {"num_classes": ..., "label_names": ..., "pretrained_cfg__num_classes": ...}
    assert from_timm(json.loads(_changed(**nothing))).num_classes == 1000
    assert from_timm(json.loads(_changed(**nothing | {"pretrained_cfg__num_classes": 7}))).num_classes == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MISSING, "all"])
def test_missing_fields_are_those_that_timm_resolves(name):
    data = import_torch_zoo("timm.data")
    names = MISSING if name == "all" else [name]
    content = json.loads(_changed(**{f"pretrained_cfg__{each}": ... for each in names}))
    found = from_timm(content).preprocesses[0]
    theirs = data.resolve_data_config(pretrained_cfg=content["pretrained_cfg"], use_test_size=True)
    assert [found.channels, *found.size] == list(theirs["input_size"])
    assert (found.interpolation, found.mean, found.std) == (
        theirs["interpolation"],
        tuple(theirs["mean"]),
        tuple(theirs["std"]),
    )
    assert pixels.resized_edge(found.size, found.crop_fraction) == math.floor(found.size[0] / theirs["crop_pct"])


def test_what_timm_cannot_compute_is_not_stored_for_it():
    assert PREPROCESS.to_timm()["interpolation"] == "bicubic"
    assert dataclasses.replace(PREPROCESS, channel_order="bgr").to_timm() is None
    assert dataclasses.replace(PREPROCESS, antialias=False).to_timm() is None


def test_the_card_names_the_rotation_that_timm_lacks():
    model = create_model("resnet8_w32", num_classes=3, input_shape=(32, 32, 3))
    for exif_orientation in (False, True):
        model.preprocess = dataclasses.replace(PREPROCESS, exif_orientation=exif_orientation)
        for for_timm in (False, True):
            card = hub_upload._card(model, HubAddress.parse("hf://user/repo"), "", for_timm=for_timm)
            noted = "timm ignores the EXIF orientation: apply `PIL.ImageOps.exif_transpose`" in "\n".join(card)
            assert noted == (exif_orientation and for_timm)


CROPS = (0.8, 0.85, 0.875, 0.9, 0.94, 0.95, 0.96, 1.0)


def test_images_are_resized_as_by_timm():
    """timm/data/transforms_factory.py: `scale_size = math.floor(img_size / crop_pct)`."""
    for size in range(32, 513):
        for crop in CROPS:
            found = PREPROCESS.with_timm_crop((size, size), crop)
            assert pixels.resized_edge(found.size, found.crop_fraction) == math.floor(size / crop), (size, crop)
    # As in timm/resnet50.a1_in1k.
    sizes = {"input_size": [3, 224, 224], "crop_pct": 0.95, "test_input_size": [3, 288, 288], "test_crop_pct": 1.0}
    settings = from_timm(CONFIG | {"pretrained_cfg": CONFIG["pretrained_cfg"] | sizes})
    trained, tested = (settings.preprocess_at((size, size)) for size in (224, 288))
    assert (round(224 / trained.crop_fraction), tested.crop_fraction) == (235, 1.0)


def test_timm_resizes_images_as_the_preprocessing_that_is_stored():
    for size in range(32, 513):
        for crop in (*CROPS, 1 / 3, 0.99, size / (size + 7), size / math.floor(size / 0.95)):
            own = ImagePreprocess(size=(size, size), crop_fraction=crop)
            resized, stored = round(size / crop), own.to_timm()["crop_pct"]
            assert math.floor(size / stored) == resized, (size, crop)
            back = own.with_timm_crop(own.size, stored)
            assert pixels.resized_edge(own.size, own.crop_fraction) == resized
            assert pixels.resized_edge(back.size, back.crop_fraction) == resized
            assert stored == pytest.approx(crop, abs=0.03)
    assert ImagePreprocess(size=(224, 224)).to_timm()["crop_pct"] == 0.875


@pytest.mark.slow
@pytest.mark.parametrize(("size", "crop"), [(224, 0.95), (288, 0.95), (176, 0.875), (160, 0.91), (192, 0.94)])
def test_transforms_of_timm_have_the_resized_edge(size, crop):
    timm = import_torch_zoo("timm")
    preprocess = ImagePreprocess(size=(size, size)).with_timm_crop((size, size), crop)
    for fraction in (crop, preprocess.to_timm()["crop_pct"]):
        resize, *_ = timm.data.create_transform(size, crop_pct=fraction).transforms
        assert resize.size == pixels.resized_edge(preprocess.size, preprocess.crop_fraction)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if is_in_timm(name)])
def test_settings_are_those_of_timms_own_configuration(name, tmp_path):
    """timm writes the configuration of each network, here without its weights."""
    timm = import_torch_zoo("timm")
    torch = pytest.importorskip("torch")
    from timm.models._hub import save_config_for_hf

    with torch.device("meta"):
        theirs = timm.create_model(timm_name(name), num_classes=5)
    save_config_for_hf(theirs, tmp_path / "config.json", model_config={"label_names": list("abcde")})
    settings = from_timm(json.loads((tmp_path / "config.json").read_text()))
    assert (settings.name, settings.num_classes, settings.labels) == (name, 5, tuple("abcde"))
    assert settings.input_shape[2] == 3
    inputs = settings.preprocess_at((None, None))
    config = theirs.pretrained_cfg
    assert inputs.size == tuple((config.get("test_input_size") or config["input_size"])[1:])
    assert (inputs.mean, inputs.std, inputs.interpolation) == (config["mean"], config["std"], config["interpolation"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("resnet18_d", {}),
        ("resnet18_d", {"output_stride": 8, "zero_gamma": False}),  # zeros would hide the dilation
        ("bit_r50x1", {"output_stride": 16}),
    ],
)
def test_timm_loads_what_is_stored_here(server, name, knobs):
    timm, torch = import_torch_zoo("timm"), pytest.importorskip("torch")
    model = create_model(name, num_classes=3, input_shape=(32, 32, 3), **knobs)
    model.preprocess, model.labels = PREPROCESS, LABELS
    push_to_hub(model, "hf://user/repo")
    theirs = timm.create_model("hf-hub:user/repo", pretrained=True).eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(_images()).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(model(_images(), training=False), expected, rtol=1e-4, atol=1e-4)
    data = timm.data.resolve_model_data_config(theirs)
    assert (tuple(data["input_size"]), data["crop_pct"], data["interpolation"]) == ((3, 32, 32), 0.8, "bicubic")
    assert (tuple(data["mean"]), tuple(data["std"])) == (PREPROCESS.mean, PREPROCESS.std)
    assert theirs.pretrained_cfg["label_names"] == list(LABELS)


def test_runs_are_stored_and_initialize_others(server, tiny_run, command):
    outcome = command("push", f"--workdir={tiny_run}", "--to=hf://user/digits@v1", "--private", "--message=digits")
    assert outcome.code == 0
    assert outcome.out.startswith(f"{server.url}/user/digits/commit/")
    assert server.repositories["user/digits"].visibility in ("private", True)
    run = load_run(tiny_run)
    found = load_from_hub("hf://user/digits@v1")
    assert (found.labels, found.preprocess) == (run.labels, run.preprocess)
    config = override(run.config, {"model.weights": "hf://user/digits@v1", "model.new_head": True})
    assert absolute_paths(config).model.weights == "hf://user/digits@v1"
    network = create_network(config, num_classes=4, weights=config.model.weights)
    kernel = run.model.get_layer("stem_conv").kernel
    np.testing.assert_array_equal(network.get_layer("stem_conv").kernel, kernel)
    assert network.output_shape == (None, 4)
