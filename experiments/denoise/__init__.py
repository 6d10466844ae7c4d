"""Parts of the task `denoising`."""
