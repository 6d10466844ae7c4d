"""Files of the Hugging Face Hub, through the package of that name where it is installed."""

import importlib
from pathlib import Path
from typing import Any

from jaxup._checks import fail
from jaxup.interop.checkpoint import one_line

_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json"]


def fetch(address: str) -> Path:
    """The file of "hf://owner/repository/file", or the folder of "hf://owner/repository", from the cache or the Hub.

    Raises:
        ValueError: another address, huggingface_hub is not installed, or it cannot get the file: there is none, it asks
            for a licence, or there is no connection and the file is not in the cache.
    """
    owner, _, rest = address.removeprefix("hf://").partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository or ".." in Path(file).parts:
        fail("source", "hf://owner/repository or hf://owner/repository/file", repr(address))
    hub = _package(address)
    name = f"{owner}/{repository}"
    try:
        if file:
            return Path(hub.hf_hub_download(name, file))
        return Path(hub.snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # of many kinds, some of them of other packages
        return fail(address, "a file of the Hub or of its cache", one_line(f"{type(error).__name__}: {error}"))


def _package(address: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        return fail(address, 'huggingface_hub installed: pip install "jaxup[hub]"', "no such package")
