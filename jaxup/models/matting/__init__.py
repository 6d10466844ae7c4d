"""Networks for image matting: from an image and its trimap to the alpha of every pixel."""

from jaxup.models.matting.a2u import A2UMatting

__all__ = ["A2UMatting"]
