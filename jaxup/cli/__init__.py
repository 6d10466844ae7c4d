"""The command `jaxup`: upsample the depth map in a file under the image in another."""

from jaxup.cli.command import METHODS, main

__all__ = ["METHODS", "main"]
