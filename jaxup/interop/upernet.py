"""Heads of UperNet: mmsegmentation, Hugging Face, CSAILVision.

Beside the official arguments every config may have `dtype`, the type in which the layers compute.
"""

from typing import Any

from flax import nnx

from jaxup.interop.backbones import conv_norm, options
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.interop.pspnet import HUGGING_FACE, MMSEG, fcn_keys, layer, pooling_keys
from jaxup.models.segmentation.upernet import UperNetHead


def upernet_keys(module: UperNetHead, names: tuple[str, str] = MMSEG) -> Table:
    """Names of mmsegmentation, and those of Hugging Face, which differ in norms and classifier, without the prefix."""
    norm, classifier = names
    table = pooling_keys(module.pooling, "pooling", norm) | layer("bottleneck", "bottleneck", norm)
    for i in range(len(module.laterals)):
        table |= layer(f"lateral_convs.{i}", f"laterals.{i}", norm) | layer(f"fpn_convs.{i}", f"smooth.{i}", norm)
    return table | layer("fpn_bottleneck", "fuse", norm) | conv(classifier, "classifier.conv")


def upernet_keys_csail(module: UperNetHead) -> Table:
    """Names of CSAILVision's `UPerNet`, counted in sequences."""
    names = {f"ppm_conv.{i}": f"pooling.branches.{i}" for i in range(len(module.pooling.branches))}
    for i in range(len(module.laterals)):
        names |= {f"fpn_in.{i}": f"laterals.{i}", f"fpn_out.{i}.0": f"smooth.{i}"}
    table = conv("conv_last.1", "classifier.conv")
    for torch, ours in (names | {"ppm_last_conv": "bottleneck", "conv_last.0": "fuse"}).items():
        table |= conv_norm(f"{torch}.0", f"{torch}.1", ours)
    return table


def _mmseg_upernet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = UperNetHead(
        config["in_channels"],
        config["num_classes"],
        features=config.get("channels", 512),
        pool_scales=config.get("pool_scales", (1, 2, 3, 6)),
        dropout=config.get("dropout_ratio", 0.1),
        **options(config),
    )
    return module, upernet_keys(module)


def _hf_upernet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """Both heads: `auxiliary` has the second one's arguments, or is None."""
    auxiliary = config.get("auxiliary")
    of_auxiliary: dict[str, Any] = {}
    if auxiliary is not None:
        of_auxiliary = dict(
            auxiliary_features=auxiliary.get("channels", 256),
            auxiliary_layers=auxiliary.get("num_convs", 1),
            auxiliary_joined=auxiliary.get("concat_input", False),
        )
    module = UperNetHead(
        config["in_channels"],
        config["num_labels"],
        features=config.get("hidden_size", 512),
        pool_scales=config.get("pool_scales", (1, 2, 3, 6)),
        dropout=0.0,
        **of_auxiliary,
        **options(config),
    )
    table = prefixed(upernet_keys(module, HUGGING_FACE), "decode_head.", "")
    if module.auxiliary is not None:
        table |= fcn_keys(module.auxiliary, "auxiliary_head.", "auxiliary.", HUGGING_FACE)
    return module, table


def _csail_upernet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """Logits, where the official module has their logarithmic softmax, or softmax with `use_softmax`."""
    module = UperNetHead(
        config["fpn_inplanes"],
        config.get("num_class", 150),
        features=config.get("fpn_dim", 256),
        pool_features=512,
        pool_scales=config.get("pool_scales", (1, 2, 3, 6)),
        resize_first=True,
        dropout=0.0,
        **options(config),
    )
    return module, upernet_keys_csail(module)


OPERATORS: Operators = {"UPerHead": _mmseg_upernet, "UperNetHead": _hf_upernet, "UPerNet": _csail_upernet}
