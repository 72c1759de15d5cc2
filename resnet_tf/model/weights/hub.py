"""Networks in repositories of the Hugging Face Hub, by addresses such as `hf://user/repo@revision`.

Nothing that comes with a repository is executed: its JSON files are checked as those of an export, and its weights are
read as any weights file, pickles of PyTorch without running code.
"""

import contextlib
import dataclasses
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_tf.core import files
from resnet_tf.core.bounded import MAX_JSON_BYTES
from resnet_tf.core.calibration import UNCALIBRATED
from resnet_tf.core.errors import UserError, plain_reason, prefix_errors
from resnet_tf.core.export_metadata import METADATA
from resnet_tf.core.ranges import shorten
from resnet_tf.core.text import printable
from resnet_tf.model.weights import hub_settings, readers
from resnet_tf.model.weights.download import OFFLINE, is_offline
from resnet_tf.model.weights.hub_settings import HubSettings

logger = logging.getLogger(__name__)

SCHEME = "hf://"
OWN_SETTINGS, TIMM_SETTINGS = METADATA.name, "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in this order; the second one is a pickle
_MAX_WEIGHTS_BYTES = 2**36
_NAME = r"[A-Za-z0-9](?:[\w.-]*[\w-])?"
_ADDRESS = re.compile(
    rf"{SCHEME}(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[\w.-]+))?(?:/(?P<file>.+))?",
    re.ASCII,
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_READERS: Mapping[str, Callable[[Mapping[str, Any]], HubSettings]] = {
    OWN_SETTINGS: hub_settings.from_metadata,
    TIMM_SETTINGS: hub_settings.from_timm,
}


@dataclass(frozen=True)
class HubAddress:
    """Address of a repository, or of a weights file in it: `hf://user/repo[@revision][/file]`.

    Attributes:
        repository: `user/repo`.
        revision: branch, tag or commit; None for the default branch.
        file: path of the weights in the repository; empty for `model.safetensors`, or else `pytorch_model.bin`.
    """

    repository: str
    revision: str | None = None
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> "HubAddress":
        """Return the address in a text.

        Raises:
            UserError: if it is none.
        """
        match = _ADDRESS.fullmatch(text)
        parts = [part for each in match.groups() if each for part in each.split("/")] if match else [".."]
        if match is None or {"", ".", ".."} & set(parts) or "--" in match["repository"]:
            raise UserError(f"{shorten(text)} is no address such as 'hf://user/repo' or 'hf://user/repo@revision'")
        file = match["file"] or ""
        if file:
            readers.check_readable(file)
        return cls(match["repository"], match["revision"], file)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}{f'/{self.file}' if self.file else ''}"


@dataclass(frozen=True)
class HubNetwork:
    """A network in a repository.

    Attributes:
        weights: its weights file in the cache.
        settings: its settings; None if the repository has none.
    """

    weights: Path
    settings: HubSettings | None


def is_address(text: object) -> bool:
    """Return True for a text that begins like an address of the Hub."""
    return isinstance(text, str) and text.startswith(SCHEME)


def fetch_network(address: HubAddress) -> HubNetwork:
    """Download the settings and the weights of a network, unless they are cached, from one commit.

    The cache is that of huggingface_hub (`HF_HOME`), as are the endpoint (`HF_ENDPOINT`), the timeout and the token.
    `HF_HUB_OFFLINE=1` or `RESNET_TF_OFFLINE=1` forbid downloads.

    Raises:
        UserError: if the repository, the revision or a file is missing, a download fails, or the settings are wrong.
    """
    repository = _Repository(address)
    settings = _find_settings(repository)
    names = (address.file,) if address.file else WEIGHTS
    weights = next((found for name in names if (found := repository.fetch(name, _MAX_WEIGHTS_BYTES))), None)
    if weights is None:
        raise UserError(f"{address} has no {' or '.join(names)}{repository.missing_hint(names[0])}")
    if settings and address.file not in ("", *WEIGHTS):  # a calibration belongs to the weights that it was fitted to
        settings = dataclasses.replace(settings, calibration=UNCALIBRATED)
    return HubNetwork(weights, settings)


def fetch_settings(address: HubAddress) -> HubSettings:
    """Return the settings of the network in a repository; see `fetch_network`.

    Raises:
        UserError: also if the repository has no settings.
    """
    repository = _Repository(address)
    settings = _find_settings(repository)
    if settings is None:
        hint = repository.missing_hint(TIMM_SETTINGS)
        raise UserError(
            f"{address} has neither {OWN_SETTINGS} nor {TIMM_SETTINGS}{hint}; name the network: "
            f"create_model(NAME, weights='{address}')"
        )
    return settings


def endpoint() -> str:
    """Return the URL of the Hub: `HF_ENDPOINT`, or the public one."""
    return client().constants.ENDPOINT


def client() -> Any:
    """Return the package huggingface_hub.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise UserError(f"{SCHEME} needs the package huggingface_hub: pip install 'resnet_tf[huggingface]'") from error
    return huggingface_hub


def _find_settings(repository: "_Repository") -> HubSettings | None:
    for name, read in _READERS.items():
        if path := repository.fetch(name, MAX_JSON_BYTES):
            with prefix_errors(f"{repository.address}: {name}"):
                return read(files.read_json(path))
    return None


class _Repository:
    """Files of a repository, all of the commit of the first one."""

    def __init__(self, address: HubAddress):
        self.address = address
        self._client = client()
        self._commit = address.revision
        self._is_offline = is_offline() or self._client.constants.HF_HUB_OFFLINE

    def fetch(self, name: str, largest: int) -> Path | None:
        """Return the path of a file in the cache, after a download if necessary; None if the repository lacks it.

        Without a network, a file that is not cached counts as missing.

        Args:
            name: path of the file in the repository.
            largest: limit of its size in bytes.

        Raises:
            UserError: if it cannot be downloaded, is larger or of unknown size, or differs from its hash.
        """
        with self._naming_failures(name):
            options = {"revision": self._commit, "endpoint": endpoint()}
            if self._is_offline:
                return self._cached(name)
            url = self._client.hf_hub_url(self.address.repository, name, **options)
            try:
                metadata = self._client.get_hf_file_metadata(url)
            except self._client.errors.RemoteEntryNotFoundError:
                return None
            except self._client.errors.HfHubHTTPError:
                raise
            except Exception as error:
                if cached := self._cached(name):
                    logger.warning("%s cannot be reached; the cached %s is used", endpoint(), name)
                    return cached
                raise error
            if metadata.size is None:
                raise UserError(f"{self.address}: {endpoint()} does not state the size of {name}")
            if metadata.size > largest:
                raise UserError(f"{self.address}: {name} has {metadata.size:,} bytes, more than {largest:,}")
            path = Path(self._client.hf_hub_download(self.address.repository, name, **options))
            self._commit = metadata.commit_hash
            return self._verified(path, name)

    def missing_hint(self, name: str) -> str:
        """Return how to provide a file without a network; empty if there is one."""
        if not self._is_offline:
            return ""
        url = self._client.hf_hub_url(self.address.repository, name, revision=self._commit, endpoint=endpoint())
        cache = self._client.constants.HF_HUB_CACHE
        return (
            f" in the cache {cache!r}, and downloads are forbidden ({OFFLINE} or HF_HUB_OFFLINE); fill the cache with "
            f"a network, or download {url} and pass its path as weights"
        )

    def _cached(self, name: str) -> Path | None:
        found = self._client.try_to_load_from_cache(self.address.repository, name, revision=self._commit)
        return self._verified(Path(found), name) if isinstance(found, str) else None

    def _verified(self, path: Path, name: str) -> Path:
        """Return a path whose file has the SHA-256 that names it in the cache; small files have a hash of Git."""
        blob = path.resolve()
        if _SHA256.fullmatch(blob.name):
            with blob.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != blob.name:
                raise UserError(
                    f"{self.address}: {name} is not the file on the Hub: its SHA-256 begins with {found[:8]}, not "
                    f"{blob.name[:8]}; delete {str(blob)!r} to download it again"
                )
        return path

    @contextlib.contextmanager
    def _naming_failures(self, name: str) -> Iterator[None]:
        errors, repository = self._client.errors, self.address.repository
        try:
            yield
        except UserError:
            raise
        except errors.GatedRepoError as error:
            raise UserError(
                f"the authors of {repository!r} grant access at {endpoint()}/{repository}; then run `hf auth login`"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"{endpoint()} has no repository {repository!r}; if it is a private one, run `hf auth login`"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise UserError(f"{repository!r} has no revision {self._commit!r}") from error
        # The client raises errors of its own, of HTTP libraries and of the system.
        except Exception as error:
            url = f"{endpoint()}/{repository}"
            raise UserError(
                f"{name} of {url} could not be downloaded ({printable(plain_reason(error))}). The next attempt "
                "continues where this one ended"
            ) from error
