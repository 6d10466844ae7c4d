"""Inference with sliding windows, of the small network that the cases describe."""

import jax
import jax.numpy as jnp

from jaxup.models.segmentation import slide
from jaxup.ops import resize
from tests.golden_cases.converted import Function


def sliding(inputs, params, config):
    """On a window z of height h: a convolution of stride 2 times 1 + h / 100, enlarged, and the mean of channel 0."""
    kernel, bias = params["weight"].transpose(2, 3, 1, 0), params["bias"]

    def network(z):
        kinds = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(z, kernel.astype(z.dtype), (2, 2), [(1, 1)] * 2, dimension_numbers=kinds)
        y = (y + bias.astype(z.dtype)[None, None, None]) * (1 + 0.01 * z.shape[1])
        return resize(y, size=z.shape[1:3], method="bilinear") + jnp.mean(z[..., :1], (1, 2), keepdims=True)

    return slide(network, inputs["x"], crop=tuple(config["crop_size"]), stride=tuple(config["stride"]))


OPERATORS: dict[str, Function] = {"sliding-window inference": sliding}
