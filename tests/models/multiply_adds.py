"""The products of a network, counted at its layers, also those with zeros around the image, as papers count them."""

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup.nn import indexnet


def multiply_adds(network: nnx.Module, *shapes: tuple[int, ...]) -> int:
    """Of convolutions and index networks; interpolation, norms and averages by kernels are not counted.

    `network`: may hold shapes in the place of arrays.
    """
    found = []

    def conv(self: Any, x: jax.Array, *_: Any) -> jax.Array:
        y = convolve(self, x)
        found.append(y[..., 0].size * self.kernel.size)
        return y

    def column(self: Any, x: jax.Array) -> jax.Array:
        y = predict(self, x)
        entries = sum(kernel.size for kernel in (self.kernel, self.mix) if kernel is not None)
        shared = self.per_channel and (self.mix if self.mix is not None else self.kernel).shape[-1] == 1
        found.append(y[..., 0].size * entries * (x.shape[3] if shared else 1))
        return y

    convolve, predict = nnx.Conv.__call__, indexnet._Column.__call__
    network.eval()
    graph, state = nnx.split(network)
    with mock.patch.object(nnx.Conv, "__call__", conv), mock.patch.object(indexnet._Column, "__call__", column):
        inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        jax.eval_shape(lambda state, *xs: nnx.merge(graph, state)(*xs), state, *inputs)
    return sum(found)
