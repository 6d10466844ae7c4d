"""DeepLab-v2 in PyTorch (isht7/pytorch-deeplab-resnet), and with the deep guided filter (wuhuikai/DeepGuidedFilter).

The config may have "NoLabels", 21 by default, "dgf", whether there is a deep guided filter, then with one scale of the
image, and `dtype`, the type in which the layers compute. The official images are B, G, R minus (104.008, 116.669,
122.675), and as the guide of the filter B, G, R from 0 to 1; the modules here take R, G, B.
"""

from typing import Any

from flax import nnx

from jaxup.interop.backbones import options, resnet_keys
from jaxup.interop.keys import Key, Operators, Table, conv, permuted, prefixed
from jaxup.models.segmentation.deeplabv2 import DeepLabV2

_BGR = permuted("conv", 2, (2, 1, 0))


def deeplab_keys(module: DeepLabV2) -> Table:
    """Names of isht7: `Scale.conv1`, `Scale.layer1.0.conv1`, ..., `Scale.layer5.conv2d_list.0`."""
    table = prefixed(resnet_keys(module.backbone), "Scale.", "backbone.")
    table["Scale.conv1.weight"] = Key("backbone.stem.0.conv.kernel", _BGR)
    for i in range(len(module.classifiers)):
        table |= conv(f"Scale.layer5.conv2d_list.{i}", f"classifiers.{i}")
    return table


def _deeplab(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    filtered = bool(config.get("dgf", False))
    scales = (1.0,) if filtered else (1.0, 0.75, 0.5)
    module = DeepLabV2(
        config.get("NoLabels", 21), scales=scales, upsampler="dgf" if filtered else "bilinear", **options(config)
    )
    table = deeplab_keys(module)
    if filtered:
        table |= conv("guided_map_conv1", "upsampler.first") | conv("guided_map_conv2", "upsampler.second")
        table["guided_map_conv1.weight"] = Key("upsampler.first.kernel", _BGR)
    return module, table


OPERATORS: Operators = {"MS_Deeplab": _deeplab}
