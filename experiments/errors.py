"""The error that means "your input, not our code"."""

from jaxup.tool.files import InputError

__all__ = ["InputError"]
