"""What the command `jaxup` does: files of depth maps and images, methods by name, and large images in tiles."""
