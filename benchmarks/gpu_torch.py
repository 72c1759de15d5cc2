"""PyTorch part of benchmarks/gpu.py: torchvision's networks, the reference on the CPU, and the timed steps."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torchvision
from gpu_cases import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case
from torch import nn
from torch.utils.checkpoint import checkpoint


def network(case: Case) -> nn.Module:
    """Create torchvision's network, with the stem for small images if the case has it."""
    model = getattr(torchvision.models, case.network)(num_classes=case.classes)
    if case.small_stem:
        model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model


def timed_step(case: Case, images: np.ndarray, labels: np.ndarray, mode: str) -> Callable[[], torch.Tensor]:
    """Return a training step in channels_last and bfloat16 autocast, on a GPU if there is one; it returns the loss.

    `mode` is `eager`, `torch.compile`, or `reduce-overhead` (torch.compile with CUDA graphs).
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = network(case).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)
    inputs = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)  # NHWC in memory: channels_last
    targets = torch.from_numpy(labels).to(device, torch.int64)

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return nn.functional.cross_entropy(model(inputs), targets)

    if mode != "eager":
        loss_of = torch.compile(loss_of, mode="reduce-overhead" if mode == "reduce-overhead" else "default")

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(inputs, targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


class Reference:
    """Training steps of torchvision's network with PyTorch's SGD on the CPU, starting from given weights.

    Attributes:
        losses: loss of each step.
        gradients: gradients of the first step including weight decay, by name in the state dict.
    """

    def __init__(self, case: Case, state: dict[str, np.ndarray], dtype: torch.dtype):
        self._dtype, self._steps, self.losses, self.gradients = dtype, 0, [], {}
        self._model = network(case).to(dtype).train()
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        missing, unexpected = self._model.load_state_dict(tensors, strict=False)
        if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
            raise ValueError(f"the networks differ: missing {missing}, unexpected {unexpected}")
        self._before = {name: each.clone() for name, each in self._model.state_dict().items()}
        self._optimizer = torch.optim.SGD(self._model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
        self._counts: dict[str, int] = {}
        for name, module in self._model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(self._counter(name))
            if isinstance(module, nn.Sequential):  # a stage; only the inputs of its blocks are kept in memory
                for block in module:
                    if hasattr(block, "downsample"):
                        block.forward = self._recomputed(block.forward)

    def step(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._optimizer.zero_grad()
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).to(self._dtype)
        loss = nn.functional.cross_entropy(self._model(inputs), torch.from_numpy(labels).long())
        loss.backward()
        self._optimizer.step()
        self._steps += 1
        self.losses.append(loss.item())
        if not self.gradients:  # after the first step, the momentum buffers equal the gradients
            self.gradients = {name: each.copy() for name, each in self.buffers().items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return weights and moving statistics, with the biased batch variance of Keras instead of the unbiased one."""
        state = {}
        for name, tensor in self._model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                count = self._counts[name.removesuffix(".running_var")]
                kept = 0.9**self._steps * self._before[name]
                tensor = kept + (tensor - kept) * (count - 1) / count
            state[name] = tensor.numpy()
        return state

    def buffers(self) -> dict[str, np.ndarray]:
        """Return the momentum buffers of SGD by weight name."""
        state = self._optimizer.state
        return {name: state[each]["momentum_buffer"].numpy() for name, each in self._model.named_parameters()}

    def _counter(self, name: str) -> Callable:
        def count(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            self._counts[name] = inputs[0].numel() // inputs[0].shape[1]

        return count

    def _recomputed(self, forward: Callable) -> Callable:
        def contexts():
            return contextlib.nullcontext(), self._frozen_statistics()

        return lambda x: checkpoint(forward, x, use_reentrant=False, context_fn=contexts)

    @contextlib.contextmanager
    def _frozen_statistics(self) -> Iterator[None]:
        """Keep the second forward pass, of the recomputation, out of the moving statistics."""
        norms = [each for each in self._model.modules() if isinstance(each, nn.BatchNorm2d)]
        for each in norms:
            each.momentum = 0.0
        try:
            yield
        finally:
            for each in norms:
                each.momentum = 0.1
