"""Imports of other packages that measurements compare with."""

from types import ModuleType


def import_torchvision() -> ModuleType:
    """Import torchvision, also one that was compiled for another build of PyTorch.

    Its operators need the build that they were compiled for. Its networks and transforms use none, but the import
    registers shapes of two, which must therefore exist.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
        import torchvision
    return torchvision
