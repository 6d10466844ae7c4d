"""jaxup: learned and classical upsampling of images, depth maps and feature maps in JAX and Flax."""

from importlib.metadata import PackageNotFoundError, version

from jaxup import interop, models, nn, ops, solvers

try:
    __version__ = version("jaxup")
except PackageNotFoundError:  # a checkout that is on the path but not installed
    __version__ = "0"

__all__ = ["interop", "models", "nn", "ops", "solvers", "__version__"]
