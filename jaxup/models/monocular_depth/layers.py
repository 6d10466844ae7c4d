"""What depth networks share: transposed convolution with norm, up-projection, and maps cut or extended to a size."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup.models.backbones.layers import Activation, ConvNorm
from jaxup.models.segmentation.upsampling import extend
from jaxup.nn.basic import Deconvolution
from jaxup.nn.functions import by_name
from jaxup.nn.norms import BatchNorm, normalise
from jaxup.ops.convolve_resized import convolve_resized


class DeconvNorm(nnx.Module):
    """Transposed convolution by 2, batch normalisation, activation.

    A filter of k x k pixels is laid so that the map doubles: padding (k - 1) // 2, output padding k % 2 in PyTorch's
    terms, which for even k is the only symmetric way.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        activation: Activation = nnx.relu,
        depthwise: bool = False,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        groups = inputs if depthwise else 1
        odd = size + 1 - size % 2
        self.conv = Deconvolution(inputs, outputs, scale=2, kernel_size=odd, groups=groups, dtype=dtype, rngs=rngs)
        if odd != size:  # an even filter is an odd one whose last row and column are 0, and not there
            self.conv.kernel = nnx.Param(self.conv.kernel[...][:size, :size] * (odd / size))
        self.norm = BatchNorm(outputs, rngs=rngs)
        self.activation, self.dtype = None if activation is None else by_name(activation), dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, inputs] -> [B, 2h, 2w, outputs]."""
        y = normalise(self.norm, self.conv(x), self.dtype)
        return y if self.activation is None else self.activation(y)


_FEW = 32  # outputs


class UpProjection(nnx.Module):
    """relu(norm(conv3x3(relu(norm(conv5x5(x))))) + norm(conv5x5(x))), where `layer` makes norm(conv5x5).

    With `DeconvNorm` it enlarges x, as in Laina et al.'s networks; with `ConvNorm` x is enlarged before.
    """

    def __init__(self, layer: Callable[..., nnx.Module], inputs: int, outputs: int, *, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.first: Any = layer(inputs, outputs, 5, **options)
        self.second = ConvNorm(outputs, outputs, 3, activation=None, **options)
        self.shortcut: Any = layer(inputs, outputs, 5, activation=None, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, inputs] -> [B, h, w, outputs], or twice the size."""
        together = isinstance(self.first, ConvNorm) and self.first.conv.out_features <= _FEW
        if not together:
            return self._finish(self.first(x), self.shortcut(x))
        return self.of_resized(x, x.shape[1:3])

    def of_resized(self, x: jax.Array, size: Sequence[int], **how: Any) -> jax.Array:
        """The same for x resized, with the options of `resize`, where layers are `ConvNorm`."""
        layers = self.first, self.shortcut
        if self.first.conv.out_features > _FEW:
            return self._finish(*(layer.of_resized(x, size, **how) for layer in layers))
        # By one convolution: on CPUs few outputs take almost as long as many.
        kernel = jnp.concatenate([layer.conv.kernel[...] for layer in layers], axis=3)
        x, kernel = (y.astype(self.first.dtype) for y in (x, kernel))
        parts = jnp.split(convolve_resized(x, kernel, (size[0], size[1]), **how), len(layers), axis=3)
        return self._finish(*(layer.finish(y) for layer, y in zip(layers, parts, strict=True)))

    def _finish(self, y: jax.Array, short: jax.Array) -> jax.Array:
        return nnx.relu(self.second(y) + short)


def fit(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """The map at another size: rows and columns cut off at the end, or copies of the last ones."""
    height, width = size
    x = x[:, :height, :width]
    return extend(x, (height - x.shape[1], width - x.shape[2]))
