"""Parts of the task `joint-upsampling`."""
