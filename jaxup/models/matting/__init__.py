"""Networks for image matting: from an image and its trimap to the alpha of every pixel."""

from jaxup.models.matting.a2u import A2UMatting
from jaxup.models.matting.deep_matting import DeepMatting
from jaxup.models.matting.deeplab import DeepLabMatting
from jaxup.models.matting.factory import MATTING_METHODS, make_matting_network
from jaxup.models.matting.mobilenet import MattingNetwork
from jaxup.models.matting.refinenet import RefineNetMatting

__all__ = [
    "A2UMatting",
    "DeepLabMatting",
    "DeepMatting",
    "MATTING_METHODS",
    "MattingNetwork",
    "RefineNetMatting",
    "make_matting_network",
]
