"""Write parity.npz: logits of torchvision and timm networks with weights from formula.py.

    pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31 && python tests/golden/make_parity.py

For each network: names and shapes of its state dict, and float32 logits of two 64-pixel images.
"""

import json
from pathlib import Path

import formula
import numpy as np
import timm
import torch
import torchvision

NETWORKS = {
    "resnet18": ("torchvision", "resnet18"),
    "resnet50": ("torchvision", "resnet50"),
    "resnext50_32x4d": ("torchvision", "resnext50_32x4d"),
    "wide_resnet50_2": ("torchvision", "wide_resnet50_2"),
    "resnet18_d": ("timm", "resnet18d"),
    "resnet50_d": ("timm", "resnet50d"),
    "seresnet50": ("timm", "seresnet50"),
    "seresnext50_32x4d": ("timm", "seresnext50_32x4d"),
    "resnet_rs50": ("timm", "resnetrs50"),
    "bit_r50x1": ("timm", "resnetv2_50x1_bit"),
}


def main() -> None:
    fixtures = {}
    images = torch.from_numpy(formula.images(2, 64)).permute(0, 3, 1, 2)
    for ours, (library, theirs) in NETWORKS.items():
        model = {"torchvision": torchvision.models.get_model, "timm": timm.create_model}[library](theirs)
        state = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
        model.load_state_dict(
            {name: torch.from_numpy(formula.weight(name, tuple(tensor.shape))) for name, tensor in state.items()},
            strict=False,
        )
        with torch.no_grad():
            fixtures[f"{ours}/logits"] = model.eval()(images).numpy()
        shapes = {name: list(tensor.shape) for name, tensor in state.items()}
        fixtures[f"{ours}/shapes"] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
        logits = fixtures[f"{ours}/logits"]
        print(f"{ours}: {len(shapes)} arrays, logits {logits.mean():.3f} +- {logits.std():.3f}")
    np.savez_compressed(Path(__file__).with_name("parity.npz"), **fixtures)


if __name__ == "__main__":
    main()
