"""`python -m jaxup.cli` is the command `jaxup`."""

import sys

from jaxup.__main__ import run

sys.exit(run())
