"""The error that means "your input, not our code"."""

from jaxup.files import InputError

__all__ = ["InputError"]
