"""Backbones that start training with published weights, such as those of ImageNet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup import interop
from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.interop.keys import flat_variables
from jaxup.models.backbones import Swin, ViT
from jaxup.models.backbones.vit import RESIZINGS
from jaxup.ops import resize

_SUFFIXES = (".safetensors", ".pth", ".pt")


class Published(NamedTuple):
    """A class of published weights: a key of `jaxup.interop.OPERATORS`, and its configuration."""

    name: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class WeightsConfig:
    """What a backbone starts with."""

    backbone_weights: Path | None = None
    """A file with the backbone's weights, .safetensors or of PyTorch, or a folder of such files, each with the name of
    its class; none: random ones."""
    backbone_name: str | None = None
    """The name of its class there, a key of `jaxup.interop.OPERATORS`. None: the usual one of this backbone, in most
    cases torchvision's."""
    backbone_config: str = "{}"
    """Its configuration as JSON, where it has a name."""

    def load(self, backbone: nnx.Module, usual: Published) -> None:
        """Gives a backbone these weights, if there are any; `usual` is what they are without a name.

        Raises:
            InputError: the file is none of this backbone.
        """
        found = self.read(usual)
        if found is not None:
            path, loaded = found
            give(path, backbone, _arrays(loaded, backbone))

    def read(self, usual: Published) -> tuple[Path, nnx.Module] | None:
        """The file of these weights, if there are any, and the backbone that it has.

        Raises:
            InputError: there is no such file, or it is of something else.
        """
        path = self.backbone_weights
        if path is None:
            if self.backbone_name is not None:
                raise InputError("backbone_name: has no effect without backbone_weights")
            return None
        name, options = usual
        if self.backbone_name is not None:
            name, options = self.backbone_name, parse("backbone_config", self.backbone_config)
        check_choice("backbone_name", name, interop.OPERATORS)
        path = _file(path, name) if path.is_dir() else path
        return path, published(path, name, options)


def _file(folder: Path, name: str) -> Path:
    files = [folder / f"{name}{suffix}" for suffix in _SUFFIXES]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise InputError(f"{folder}: has none of {', '.join(file.name for file in files)}")
    return found


def published(path: Path, name: str, config: Mapping[str, Any]) -> nnx.Module:
    """The module of a published checkpoint; `name` and `config` as for `jaxup.interop.from_torch`.

    Raises:
        InputError: the file is no checkpoint of this class and configuration.
    """
    tensors = interop.load_checkpoint(path)
    try:
        return interop.from_torch(name, tensors, dict(config))
    except ValueError as error:
        first, *rest = str(error).splitlines()
        more = f", and {len(rest) - 3} more" if len(rest) > 3 else ""
        raise InputError(f"{path}, as {name}: {first}{';'.join(rest[:3])}{more}") from error


def parse(name: str, text: str) -> dict[str, Any]:
    """Options that are given as JSON."""
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: expected JSON, got {text!r} ({error})") from error
    if not isinstance(options, dict):
        raise InputError(f"{name}: expected an object of JSON, got {text!r}")
    return options


def _arrays(loaded: Any, backbone: Any) -> dict[str, jax.Array]:
    """By path. Of a ViT, positions on the grid of the backbone, with the bias of the patches if it has none itself.

    A Swin that was a classifier has one norm; those of the other maps stay as they are.
    """
    arrays = {path: variable[...] for path, variable in flat_variables(loaded).items()}
    if isinstance(loaded, Swin) and isinstance(backbone, Swin):
        new = {path: variable[...] for path, variable in flat_variables(backbone).items() if path.startswith("norms.")}
        arrays = new | arrays
    if isinstance(loaded, ViT) and isinstance(backbone, ViT):
        first, table = arrays["positions"][:1], arrays["positions"][1:]
        table = table.reshape(1, *loaded.grid, -1)
        grid = resize(table, size=backbone.grid, **RESIZINGS[backbone.position_resize]).reshape(-1, table.shape[3])
        if backbone.embed.bias is None and "embed.bias" in arrays:
            grid = grid + arrays.pop("embed.bias")[None]
        arrays["positions"] = jnp.concatenate([first, grid])
    return arrays


def give(path: Path, backbone: nnx.Module, arrays: Mapping[str, jax.Array]) -> None:
    """Puts the arrays of a file in the place of all that a backbone has, by their paths in it."""
    state = nnx.state(backbone, nnx.Not(nnx.RngState))
    variables = flat_variables(state)
    for key in sorted(variables.keys() | arrays.keys()):
        if key not in arrays:
            raise InputError(f"{path}: expected the backbone's {key}, which is not there")
        if key not in variables:
            raise InputError(f"{path}: has {key}, which the backbone has not")
        wanted, found = variables[key].get_value().shape, arrays[key].shape
        if wanted != found:
            raise InputError(f"{path}: expected the backbone's {key} of shape {wanted}, got {found}")
        variables[key].set_value(arrays[key])
    nnx.update(backbone, state)
