"""Experiments on top of jaxup: scripts a researcher forks, one task per file."""
