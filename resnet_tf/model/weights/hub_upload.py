"""Upload of a network to a repository of the Hugging Face Hub."""

import json
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.text import counted, markdown, printable
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights import hub, readers
from resnet_tf.model.weights.dialects import Dialect
from resnet_tf.model.weights.hub import OWN_SETTINGS, TIMM_SETTINGS, WEIGHTS, HubAddress
from resnet_tf.model.weights.hub_settings import to_metadata, to_timm
from resnet_tf.model.weights.mapping import (
    find_torch_dialect,
    first_convolution,
    named_values,
    named_variables,
    to_torchvision,
)
from resnet_tf.model.weights.selection import VariableName

CARD = "README.md"
_MAX_LISTED = 20  # class names on a card


def upload(model: ResidualNetwork, address: HubAddress, *, private: bool | None, license: str, message: str) -> str:
    """Write a network to a repository in one commit, and return the URL of the commit.

    A missing repository and a missing branch are created. A card that is there stays.

    Args:
        model: network of `create_model`.
        address: repository, and branch as its revision.
        private: visibility of a new repository; None for the default of the account.
        license: identifier of the license for a new card, such as `apache-2.0`; empty for none.
        message: of the commit.

    Raises:
        UserError: for an address of a file, and if the Hub refuses or cannot be reached.
    """
    if address.file:
        raise UserError(f"{address} is a file; a network is stored in a repository: 'hf://{address.repository}'")
    api = hub.client().HfApi(endpoint=hub.endpoint(), library_name="resnet_tf")
    with tempfile.TemporaryDirectory(prefix="resnet_tf-") as temporary:
        write_repository(model, Path(temporary))
        try:
            api.create_repo(address.repository, private=private, exist_ok=True)
            if address.revision:
                api.create_branch(address.repository, branch=address.revision, exist_ok=True)
            if not api.file_exists(address.repository, CARD, revision=address.revision):
                for_timm = (Path(temporary) / TIMM_SETTINGS).exists()
                card = "\n".join(_card(model, address, license, for_timm=for_timm))
                (Path(temporary) / CARD).write_text(f"{card}\n", encoding="utf-8")
            commit = api.upload_folder(
                repo_id=address.repository,
                folder_path=temporary,
                revision=address.revision,
                commit_message=message or f"Upload {model.zoo_name}",
                delete_patterns=TIMM_SETTINGS,  # those of an earlier network, unless this one has its own
            )
        # The client raises errors of its own, of HTTP libraries and of the system.
        except Exception as error:
            raise UserError(
                f"{hub.endpoint()} did not accept {address} ({printable(plain_reason(error))}); `hf auth login` stores "
                "the token of an account that may write there"
            ) from error
    return str(commit.commit_url)


def write_repository(model: ResidualNetwork, directory: Path) -> None:
    """Write the files of a repository to an empty directory: weights, and settings for this package and for timm.

    Raises:
        UserError: for a network that returns feature maps.
    """
    if isinstance(model.output, dict):
        raise UserError(f"{model.name} returns feature maps; store the network with its head, or with num_classes=0")
    dialect, variables = find_torch_dialect(model), named_variables(model)
    if dialect:
        arrays = to_torchvision(model)
    else:
        arrays = {"/".join(names): value for names, value in named_values(model).items()}
    readers.write_safetensors(directory / WEIGHTS[0], arrays, model.metadata.to_dict())
    num_classes = _num_classes(model)
    _write_json(directory / OWN_SETTINGS, to_metadata(model.metadata, tuple(model.input_shape[1:]), num_classes))
    if dialect and (timm := to_timm(model.metadata, num_classes, **_ends(dialect, variables))):
        _write_json(directory / TIMM_SETTINGS, timm)


def _num_classes(model: ResidualNetwork) -> int:
    return model.output_shape[-1] if (LOGITS_LAYER, "kernel") in named_variables(model) else 0


def _write_json(path: Path, content: Any) -> None:
    path.write_text(files.to_json(content, indent=2) + "\n", encoding="utf-8")


def _ends(dialect: Dialect, variables: Collection[VariableName]) -> dict[str, str]:
    """Return the names of the first convolution and of the head in a naming scheme."""
    first = first_convolution(variables)
    keys = {"first_conv": dialect.key(first, "kernel"), "classifier": dialect.key(LOGITS_LAYER, "kernel")}
    return {name: str(key).rpartition(dialect.separator)[0] for name, key in keys.items()}


def _card(model: ResidualNetwork, address: HubAddress, license: str, *, for_timm: bool) -> Iterator[str]:
    """Yield the lines of a card, after the metadata of the Hub; `for_timm` if the repository has settings for timm."""
    num_classes = _num_classes(model)
    yield from ("---", "library_name: keras", "tags:", "- image-classification", "- resnet_tf")
    yield from ([f"license: {json.dumps(license)}"] if license else [])
    yield from ("---", f"# {markdown(address.repository)}", "")
    head = counted(num_classes, "class") if num_classes else "pooled features"
    yield f"A residual network, `{model.zoo_name}`, with {head}."
    if model.preprocess:
        yield f"{model.preprocess.description} {model.preprocess.normalization}"
    if for_timm and model.preprocess and model.preprocess.timm_note:
        yield model.preprocess.timm_note
    yield from ("", "```python", "import resnet_tf", "", f'model = resnet_tf.load_from_hub("{address}")', "```")
    if model.labels:
        more = ", ..." if len(model.labels) > _MAX_LISTED else ""
        yield f"\nClasses: {', '.join(map(markdown, model.labels[:_MAX_LISTED]))}{more}"
