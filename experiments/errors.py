"""The error that means "your input, not our code"."""


class InputError(ValueError):
    """Bad input from the user: a file, folder or option. The message is one line and names it."""
