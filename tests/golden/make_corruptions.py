"""Write corruptions.npz: pixels of corrupted images, computed by the published code and by independent packages.

    pip install imagecorruptions==1.1.2 tensorflow-datasets==4.9.10 'setuptools<81'
    python tests/golden/make_corruptions.py make_cifar_c.py

`make_cifar_c.py` is that of github.com/hendrycks/robustness, `ImageNet-C/create_c`; its functions are run.
ImageMagick's motion blur is that of the package imagecorruptions, which also computes ImageNet-C, with the elastic
transform and the centered zoom of tensorflow-datasets, which are those of the paper. Every function starts from
`np.random.seed(severity)`. A part of the pixels is stored: every second row and column of 32 pixels, every 16th of 224.
"""

import sys
import types
from importlib import util
from io import BytesIO
from pathlib import Path

import formula
import numpy as np
import skimage
from PIL import Image
from scipy import ndimage

np.float_, np.fromstring = np.float64, np.frombuffer  # removed from NumPy
sys.modules.setdefault("scipy.ndimage.interpolation", ndimage)

from imagecorruptions import corruptions as imagecorruptions  # noqa: E402 (after the names are there)

NAMES = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
_END = "# /////////////// End Distortions ///////////////"


def gaussian(image, sigma, *, multichannel=False, **options):
    return skimage.filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)


def random_noise(image, **options):
    return _random_noise(image, rng=np.random.Generator(np.random.MT19937(_seed[0])), **options)


_random_noise, _seed = skimage.util.random_noise, [0]
skimage.util.random_noise = random_noise


class WandImage:
    """Image of the package wand, as far as the published code uses it."""

    def __init__(self, blob):
        self.pixels = np.asarray(Image.open(BytesIO(blob)), np.float32)
        self.wand = self

    def make_blob(self):
        file = BytesIO()
        Image.fromarray(self.pixels.astype(np.uint8)).save(file, "PNG")
        return file.getvalue()


def motion_blur(wand, radius, sigma, angle):
    wand.pixels = np.rint(imagecorruptions._motion_blur(wand.pixels, radius, sigma, angle))


def cifar_c(path):
    library = types.SimpleNamespace(MagickMotionBlurImage=motion_blur)
    modules = {"wand": {}, "wand.image": {"Image": WandImage}, "wand.api": {"library": library}, "wand.color": {}}
    for name, content in modules.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    torch = (
        "torch",
        "torch.utils",
        "torch.utils.data",
        "torchvision",
        "torchvision.datasets",
        "torchvision.transforms",
    )
    sys.modules |= {name: types.ModuleType(name) for name in torch}
    functions: dict = {}
    exec(path.read_text().split(_END)[0], functions)
    for name in torch:
        del sys.modules[name]
    functions["gaussian"] = gaussian
    return functions


def imagenet_c():
    functions = vars(imagecorruptions)
    lazy = types.SimpleNamespace(
        scipy=types.SimpleNamespace(ndimage=ndimage), skimage=skimage, cv2=imagecorruptions.cv2
    )
    public_api = types.SimpleNamespace(core=types.SimpleNamespace(lazy_imports=lazy))
    for name in ("tensorflow_datasets", "tensorflow_datasets.core.utils.lazy_imports_utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["tensorflow_datasets"].public_api = public_api
    sys.modules["tensorflow_datasets.public_api"] = public_api
    sys.modules["tensorflow_datasets.core.utils.lazy_imports_utils"].tensorflow = None
    folder = next(
        Path(each) / "tensorflow_datasets" for each in sys.path if (Path(each) / "tensorflow_datasets").is_dir()
    )
    loadable = util.spec_from_file_location("published", folder / "image_classification" / "corruptions.py")
    published = util.module_from_spec(loadable)
    ndimage.interpolation = ndimage
    loadable.loader.exec_module(published)
    functions |= {"gaussian": gaussian, "clipped_zoom": published.clipped_zoom}
    return {**functions, "elastic_transform": published.elastic_transform}


def main() -> None:
    fixtures = {}
    for name, functions, size, step in (
        ("cifar", cifar_c(Path(sys.argv[1])), 32, 2),
        ("imagenet", imagenet_c(), 224, 16),
    ):
        image = Image.fromarray(formula.photo(size))
        for corruption in NAMES:
            for severity in range(1, 6):
                np.random.seed(severity)
                _seed[0] = severity
                given = np.asarray(image) if name == "imagenet" and corruption == "elastic_transform" else image
                corrupted = np.uint8(functions[corruption](given, severity))
                fixtures[f"{name}/{corruption}/{severity}"] = corrupted[::step, ::step]
    np.savez_compressed(Path(__file__).with_name("corruptions.npz"), **fixtures)


if __name__ == "__main__":
    main()
