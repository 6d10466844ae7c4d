"""jaxup: learned and classical upsampling of images, depth maps and feature maps in JAX and Flax."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxup import interop, losses, matting, metrics, models, nn, ops, solvers
    from jaxup.interop.load import load

try:
    __version__ = version("jaxup")
except PackageNotFoundError:  # a checkout that is on the path but not installed
    __version__ = "0"

__all__ = ["interop", "losses", "matting", "metrics", "models", "nn", "ops", "solvers", "load", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a package when it is first asked for, so that `jaxup --help` need not wait for JAX."""
    if name == "load":
        return importlib.import_module("jaxup.interop.load").load
    if name in __all__:
        return importlib.import_module(f"jaxup.{name}")
    raise AttributeError(f"module 'jaxup' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
