"""Storing of networks on the Hugging Face Hub."""

from pathlib import Path

from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import shorten
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights.hub import HubAddress
from resnet_tf.model.weights.hub_upload import upload
from resnet_tf.training.run import Run, load_run
from resnet_tf.workflows.evaluate import check_checkpoint


def push_to_hub(
    run_or_model: Run | ResidualNetwork | str | Path,
    address: str,
    *,
    checkpoint: str = "",
    private: bool | None = None,
    license: str = "",
    message: str = "",
) -> str:
    """Upload a network to a repository of the Hugging Face Hub, and return the commit's URL.

    Written are `model.safetensors` in the names of torchvision or timm, `resnet_tf.json` with architecture,
    preprocessing and class names, for timm's networks also its `config.json`, so that `timm.create_model` loads them,
    and a card (`README.md`) unless there is one. Needs the package huggingface_hub, and the token of an account that
    may write there, as `hf auth login` stores it.

    Args:
        run_or_model: a run directory, the run that `load_run` returned, or a network of `create_model`.
        address: `hf://user/repo`, or `hf://user/repo@branch`. A missing repository or branch is created.
        checkpoint: see `load_run`, for a run directory.
        private: visibility of a new repository; None for the default of the account.
        license: identifier of the license for a new card, such as `apache-2.0`.
        message: commit message.

    Raises:
        UserError: for a model that is none of this package, or if the Hub refuses or cannot be reached.
    """
    parsed = HubAddress.parse(address)
    if isinstance(run_or_model, str | Path):
        run_or_model = load_run(run_or_model, checkpoint=checkpoint)
    else:
        check_checkpoint(checkpoint, run_or_model)
    model = run_or_model.model if isinstance(run_or_model, Run) else run_or_model
    if not isinstance(model, ResidualNetwork) or model.arch is None:
        raise UserError(f"push_to_hub takes a run or a network of create_model, got {shorten(model)}")
    return upload(model, parsed, private=private, license=license, message=message)
