"""Official UPLiFT (mwalmer-umd/UPLiFT) to `jaxup.nn.UPLiFT`; configurations have the official form."""

from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.backbones import options
from jaxup.interop.keys import Key, Operators, Table, batch_norm, conv, norm, prefixed
from jaxup.nn.norms import BatchNorm
from jaxup.nn.uplift import UPLiFT
from jaxup.nn.uplift_layers import Down, Group, ImageEncoder, LocalAttender


def _norm(module: nnx.Module, torch: str, ours: str) -> Table:
    return (batch_norm if isinstance(module, BatchNorm) else norm)(torch, ours)


def _group(group: Group) -> Table:
    table: Table = {}
    for i, block in enumerate(group.blocks):
        layers: Table = {}
        for j, layer_norm in enumerate(block.norms):
            layers |= conv(f"{3 * j}", f"convs.{j}", bias=False) | _norm(layer_norm, f"{3 * j + 1}", f"norms.{j}")
        layers |= conv(f"{3 * len(block.norms)}", "mix") if block.mix is not None else {}
        table |= prefixed(layers, f"blocks.{i}.conv.", f"blocks.{i}.")
    return table


def _down(down: Down) -> Table:
    return {} if down.conv is None else conv("down.0", "conv") | batch_norm("down.1", "norm")


def _image_encoder(encoder: ImageEncoder) -> Table:
    table: Table = {}
    for k, group in enumerate(encoder.groups):
        table |= prefixed(_group(group), f"block_{k}.", f"groups.{k}.")
    for k, down in enumerate(encoder.downs):
        table |= prefixed(_down(down), f"down_{k + 1}.", f"downs.{k}.")
    return table


def _keys(module: UPLiFT) -> Table:
    table = prefixed(_image_encoder(module.encoder), "encoder.", "encoder.")
    table |= prefixed(_group(module.coarse), "decoder.block_0.", "coarse.")
    table |= prefixed(_group(module.fine), "decoder.block_1.", "fine.")
    table |= {"decoder.up_1.up.weight": Key("double.kernel", "conv_in_out"), "decoder.up_1.up.bias": Key("double.bias")}
    if module.attender is not None:
        table |= conv("attender.conv1", "attender.score")
    else:
        table |= conv("decoder.outc", "head")
    if module.refiner is not None:
        table |= prefixed(_group(module.refiner), "refiner.", "refiner.") | conv("ref_outc", "refined")
    return table


def _uplift(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    inner = config.get("uplift", {})
    neighbours = inner.get("attender", 17)
    module = UPLiFT(
        config.get("channel", 384),
        neighbours=neighbours if neighbours > 0 else None,
        patch_size=config.get("patch_size", 14),
        share_encoder=inner.get("enc_share", False),
        **{name: inner.get(name) for name in ("encoder", "decoder", "refiner")},
        **options(config),
    )
    return module, _keys(module)


def _encoder_alone(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = ImageEncoder(3, config["encoder"], **options(config))
    return module, _image_encoder(module)


def _attender(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    residual = config.get("conv_res", False)
    module = LocalAttender(config["in_channels"], config["num_connected"], residual=residual, **options(config))
    return module, conv("conv1", "score")


def config_of(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arguments of a released state dict: the number of channels; the patch is not among its numbers."""
    seen = state["decoder.block_0.blocks.0.conv.0.weight"].shape[1]
    last = max(key for key in state if key.startswith("encoder.block_") and key.endswith("conv.3.bias"))
    return {"channel": seen - len(state[last]), "uplift": {"enc_share": True}}


OPERATORS: Operators = {"UPLiFT": _uplift, "uplift.Encoder": _encoder_alone, "LocalAttender": _attender}
