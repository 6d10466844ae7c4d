"""The former names of `jaxup.files`, `jaxup.cli.depth` and `jaxup.cli.methods`, for programs that import them."""

import sys
import warnings

from jaxup import files
from jaxup.cli import depth, methods

warnings.warn("jaxup.tool is now jaxup.files and jaxup.cli", DeprecationWarning, stacklevel=2)
sys.modules |= {f"{__name__}.{new.__name__.rpartition('.')[2]}": new for new in (files, depth, methods)}
