"""Parts of the task `reconstruction`."""
