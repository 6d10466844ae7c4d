"""CARAFE of open-mmlab/mmcv."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Operators, Table, conv
from jaxup.nn.carafe import CARAFE


def _carafe_pack(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = CARAFE(
        config["channels"],
        scale=config["scale_factor"],
        kernel_size=config.get("up_kernel", 5),
        groups=config.get("up_group", 1),
        encoder_kernel_size=config.get("encoder_kernel", 3),
        encoder_dilation=config.get("encoder_dilation", 1),
        compressed_features=config.get("compressed_channels", 64),
        rngs=nnx.Rngs(0),
    )
    return module, conv("channel_compressor", "compressor") | conv("content_encoder", "encoder")


OPERATORS: Operators = {"CARAFEPack": _carafe_pack}
