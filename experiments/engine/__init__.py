"""What all tasks share: configurations, the training loop, checkpoints, progress, and reports."""
