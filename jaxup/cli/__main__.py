"""`python -m jaxup.cli` is the command `jaxup`."""

import sys

from jaxup.cli.command import main

sys.exit(main())
