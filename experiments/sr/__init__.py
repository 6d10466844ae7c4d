"""Parts of the task `super-resolution`."""
