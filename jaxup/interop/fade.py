"""Official FADE (poppinace/fade) to `jaxup.nn.FADE`: FADE_L2H.py and FADE_H2L.py name the same tensors differently."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Key, Operators, Table, conv, prefixed
from jaxup.nn.fade import FADE, SemiShift

LOW_TO_HIGH: Table = (
    conv("compressor_en", "compress_guide")
    | conv("compressor_de", "compress_x", bias=False)
    | conv("content_encoder", "conv")
)
HIGH_TO_LOW: Table = (
    conv("conv1_en", "compress_guide")
    | conv("conv1_de", "compress_x", bias=False)
    | {"conv2_kernels": Key("conv.kernel", "conv"), "conv2_bias": Key("conv.bias")}
)


def _semi_shift(config: dict[str, Any]) -> tuple[nnx.Module, Table, Table]:
    """`out_channels` and `kernel_size` are arguments of the low-to-high form, `up_kernel_size` of the other."""
    module = SemiShift(
        config["in_channels_de"],
        config["in_channels_en"],
        config.get("out_channels", config.get("up_kernel_size", 5) ** 2),
        scale=config.get("scale", 2),
        kernel_size=config.get("kernel_size", 3),
        embedding_features=config.get("embedding_dim", 64),
        rngs=nnx.Rngs(0),
    )
    forms = (LOW_TO_HIGH, HIGH_TO_LOW)
    return module, *(forms if "out_channels" in config else forms[::-1])


def _fade(config: dict[str, Any], **options: bool) -> tuple[nnx.Module, Table, Table]:
    module = FADE(
        config["in_channels_de"],
        config["in_channels_en"],
        scale=config.get("scale", 2),
        kernel_size=config.get("up_kernel_size", 5),
        embedding_features=config.get("embedding_dim", 64),
        rngs=nnx.Rngs(0),
        **options,
    )
    gate = {} if module.gate is None else conv("gate_generator.conv", "gate")
    low_to_high = prefixed(LOW_TO_HIGH, "ker_generator.", "logits.")
    return module, low_to_high | gate, prefixed(HIGH_TO_LOW, "kernel_generator.", "logits.") | gate


OPERATORS: Operators = {
    "SemiShift": _semi_shift,
    "SemiShiftUp": lambda config: _fade(config, gated=False),
    "FADE": _fade,
    "FADELite": lambda config: _fade(config, lite=True),
}
