"""Reading of PyTorch checkpoints without running code."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.core.bounded import check_expansion
from resnet_tf.core.errors import UserError

# Names of the weights in checkpoints of training programs, in the order of preference: the averaged ones come last.
_WEIGHTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights", "module")
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "params_ema", "ema")


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict, bare or inside the checkpoint of a training program.

    Only arrays are unpickled, for security. Averaged weights are read if there are no others.

    Raises:
        UserError: for objects other than arrays, or several dicts of arrays of unknown names.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{str(path)!r} contains objects other than arrays, which are not loaded because they could run code"
        ) from error
    tensors = {name: each for name, each in _state_dict(content, path).items() if isinstance(each, torch.Tensor)}
    # A tensor may repeat one value along an axis, without any bytes for it.
    check_expansion(sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size)
    return {
        name: tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in tensors.items()
    }


def _state_dict(content: Any, path: Path) -> Mapping[str, Any]:
    """Return the innermost dict of arrays."""
    if not isinstance(content, Mapping):
        raise UserError(f"{str(path)!r} contains {type(content).__name__}, not a state dict")
    dicts = {name: each for name, each in content.items() if isinstance(each, Mapping) and _has_layers(each)}
    known = [name for name in (*_WEIGHTS, *_AVERAGED) if name in dicts]
    if not dicts:
        return content
    if not known and len(dicts) > 1:
        raise UserError(
            f"{str(path)!r} contains several state dicts, {', '.join(map(repr, dicts))}; save the one to load by itself"
        )
    return _state_dict(dicts[known[0] if known else next(iter(dicts))], path)


def _has_layers(content: Mapping[Any, Any]) -> bool:
    """Return True for a state dict or a dict that contains one; the states of optimizers have numbers as keys."""
    import torch

    return any(
        (isinstance(name, str) and "." in name and isinstance(value, torch.Tensor))
        or (isinstance(value, Mapping) and _has_layers(value))
        for name, value in content.items()
    )
