"""Metadata, dependencies and the map that puts the top-level configs/ into the wheel as resnet_tf.configs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION_FILE = HERE / "resnet_tf" / "core" / "version.py"
(VERSION,) = re.findall(r'__version__ = "(.+)"', VERSION_FILE.read_text(encoding="utf-8"))

HUB = ["huggingface_hub>=1.0"]  # the first with `errors.RemoteEntryNotFoundError`
LITERT = ["ai-edge-litert>=2.1"]
# The runtime, and the quantization to int8; nncf 2.17 is the release for openvino 2025.2.
OPENVINO = ["openvino>=2025.2", "nncf>=2.17"]
ONNX = ["tf2onnx>=1.16.1", "onnxruntime>=1.22"]  # the writer, and the reader that checks what it wrote
# The page sets options of `mount_gradio_app` that earlier releases lack, and that a major version may rename.
DEMO = [
    "gradio>=6.31,<7",
    # Imported as well; the floors are those of Gradio, except for uvicorn.
    "fastapi>=0.115.2",
    "starlette>=1.0.1",
    "uvicorn>=0.22",  # the first with `timeout_graceful_shutdown`
]
# Label errors; the first with `find_label_issues` of multi-label data and without a limit on numpy. It brings
# scikit-learn and SciPy, of which the other checks take nearest neighbors, transforms and linear algebra.
AUDIT = ["cleanlab>=2.7", "scikit-learn>=1.6", "scipy>=1.15"]
WANDB = "wandb>=0.19"  # the first whose offline runs take an id again
MLFLOW = "mlflow>=3.1"  # Keras callbacks for Keras 3
JAX = "jax>=0.10.2"  # runs HLO without TensorFlow, by internal interfaces: the oldest release that was tried
TENSORFLOW = "2.20"  # the newest release that exists for TPUs, see requirements-tpu.txt; CI installs 2.21

setup(
    name="resnet_tf",
    version=VERSION,
    description="Residual networks for Keras: data, training, weights and serving that agree",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "resnet_tf/data/sources/digits.LICENSE.txt"],
    entry_points={"console_scripts": ["resnet-tf = resnet_tf.__main__:main"]},
    python_requires=">=3.11",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=["resnet_tf", "resnet_tf.*"]), "resnet_tf.configs"],
    package_dir={"resnet_tf.configs": "configs"},
    package_data={
        "resnet_tf": ["py.typed"],
        "resnet_tf.core": ["imagenet_classes.txt"],
        "resnet_tf.report": ["page.html"],
        "resnet_tf.data.sources": ["digits.npz", "digits.LICENSE.txt"],
    },
    install_requires=[
        f"tensorflow>={TENSORFLOW}",
        # The optimizers override private methods of Keras's (`_muon_update_step`, `_should_use_adamw`,
        # `_all_reduce_sum_gradients`, `_get_variable_index`), and BatchNormalization and the weight readers rely on
        # attributes and on a file layout that Keras does not document. A release that renames one would be ignored in
        # silence, so the range is the one that the tests have run on. Floor: earlier releases have known CVEs in the
        # loading of models.
        "keras>=3.15.1,<3.16",
        "tensorflow-datasets>=4.9.10",  # the first that runs with the protobuf of tensorflow 2.21
        "pyarrow>=17",  # tables; tensorflow-datasets requires it without a floor; the first built for numpy 2.1
        "importlib-resources>=6",  # imported by tensorflow-datasets, which does not declare it
        "absl-py>=2.1",
        "h5py>=3.11",  # weights of Keras, which requires it without a floor; the first for numpy 2
        "safetensors>=0.5",  # weights of other libraries without pickles
        "numpy>=2.0",
        "tensorboard>=2.20",  # tf.summary takes its writers from there; tensorflow 2.21 no longer requires it
        "matplotlib>=3.9",  # the first with wheels for numpy 2
    ],
    extras_require={
        "gpu": [f"tensorflow[and-cuda]>={TENSORFLOW}"],
        "litert": LITERT,
        "onnx": ONNX,
        "openvino": OPENVINO,
        "huggingface": HUB,
        "demo": DEMO,
        "audit": AUDIT,
        "wandb": [WANDB],
        "mlflow": [MLFLOW],
        "test": [
            "pytest>=8.4",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "kubernetes-validate>=1.31",  # schemas of the manifests in examples/
            "codespell>=2.4",  # the first with `# codespell:ignore` comments
            "mypy>=1.18",
            "build>=1.2",
            "pillow>=11",
            "pandas>=2.2",  # writes the tables of the tests
            "scikit-learn>=1.6",
            "pyyaml>=6",
            "playwright>=1.49",  # drives Chromium, which it does not bring; tests of pages are skipped without one
            *DEMO,
            *AUDIT,
            "cleanvision>=0.3.6",  # independent measures of image quality
            "scipy>=1.15",  # independent statistics: of the bootstrap, with `rng`, and of the binomial test
            "statsmodels>=0.14.4",  # independent McNemar test and adjusted p-values; the first for numpy 2
            JAX,
            # Programs that read our exports.
            *LITERT,
            *ONNX,
            *HUB,
            *OPENVINO,
            "tf_keras>=2.21",
            "tensorflow-hub>=0.16.1",
            "setuptools<82",  # tensorflow-hub imports its pkg_resources
            "tensorflow-serving-api>=2.19",  # the protocol buffers of the server
            # Experiment trackers, which are tested offline.
            WANDB,
            MLFLOW,
        ],
        "bench": ["torch>=2.6", "torchvision>=0.21", JAX, *LITERT, *ONNX, *OPENVINO],
    },
)
