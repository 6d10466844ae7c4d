"""Vision Transformer (Dosovitskiy et al., ICLR 2021), with position embeddings for any image size."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_choice, check_divides, check_features, check_int, fail
from jaxup.models.backbones.layers import MLP, NARROW, Attention, Residual, classifier, patch_embedding, require, rising
from jaxup.nn.norms import layer_norm, normalise
from jaxup.ops.resize import resize

# How the grid of position embeddings comes to another size.
RESIZINGS: dict[str, dict[str, Any]] = {
    "bicubic-antialias": dict(method="bicubic", antialias=True),
    "bicubic": dict(method="bicubic", cubic_coefficient=-0.75),
    "bilinear": dict(method="bilinear"),
}


class Block(nnx.Module):
    """Attention and MLP, each after a norm and added to its input; `options` are those of `Residual`."""

    def __init__(self, features: int, heads: int, hidden: int, *, rngs: nnx.Rngs, **options: Any):
        dtype = options["dtype"]
        self.attention = Residual(features, Attention(features, heads, dtype=dtype, rngs=rngs), rngs=rngs, **options)
        self.mlp = Residual(features, MLP(features, hidden, dtype=dtype, rngs=rngs), rngs=rngs, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None, *, drop: float = 0.0) -> jax.Array:
        """[B, T, features] -> the same shape."""
        return self.mlp(self.attention(x, rngs, drop), rngs, drop)


class ViT(nnx.Module):
    """Vision Transformer: a class token and patches, blocks of attention and MLP, each after a layer normalisation.

        tokens = [class, conv_p(x)] + positions;  per block:  x + attention(norm(x)),  x + mlp(norm(x));  norm

    Images whose sides are no multiples of the patch are extended by zeros at the bottom and on the right. Position
    embeddings of the patches are resized to the image's grid, as `position_resize` says: "bicubic-antialias" as timm
    does with `dynamic_img_size`, "bicubic" as mmsegmentation, "bilinear" as the official code of Segmenter. The first
    leaves them as they are where the number of patches is that of `image_size` and the grid is square, the other two
    wherever the number is.

    Parameters at 224 x 224 with patches of 16, without a classifier of width + 1 per class: Ti (width 192, 3 heads):
    5,524,416; S (384, 6): 21,665,664; B (768, 12): 85,798,656; L (1024, 16, depth 24): 303,301,632.

    Args:
        in_features: channels of the image.
        patch_size: p.
        width: channels of the tokens.
        depth: blocks.
        num_heads: of the attention, a divisor of the width.
        mlp_ratio: channels inside the MLP over the width.
        image_size: for which there are position embeddings; an int or a pair, multiples of the patch.
        position_resize: "bicubic-antialias", "bicubic" or "bilinear".
        epsilon: of all layer normalisations; timm and mmsegmentation have 1e-6, Segmenter 1e-5.
        patch_bias: whether the convolution of patches has a bias; mmsegmentation's has none.
        drop_path: the probability with which training drops the branches of the last block, of the others less.
        taps: blocks whose outputs are returned, counted from 1, with 0 the embedding; None is the last one.
        num_classes: of a classifier for `classify`, or None.
        dtype: the type in which layers compute; parameters are float32, and so are norms and softmax.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> a map [B, ceil(H / p), ceil(W / p), width] for each tap, in the dtype of x;
        that of the last block after the final norm, the others without. `module.encode(x)` has the tokens, too. Both
        drop paths in training if they are given a source, `module(x, rngs=rngs)`.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: ViT(patch_size=8, width=12, depth=2, num_heads=3, image_size=32, rngs=nnx.Rngs(0))(x)
        >>> [y.shape for y in nnx.eval_shape(run, jnp.ones((1, 20, 64, 3)))]
        [(1, 3, 8, 12)]

    Reference:
        Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, ICLR 2021.
        Official weights: timm, mmsegmentation (Apache-2.0), Segmenter (MIT).
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: int = 4,
        image_size: int | Pair = 224,
        position_resize: str = "bicubic-antialias",
        epsilon: float = 1e-6,
        patch_bias: bool = True,
        drop_path: float = 0.0,
        taps: Sequence[int] | None = None,
        num_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.patch_size = check_int("in_features", in_features), check_int("patch_size", patch_size)
        check_choice("position_resize", position_resize, RESIZINGS)
        check_divides("num_heads", num_heads, "width", width)
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        for side in sides:
            check_divides("patch_size", patch_size, "image_size", side)
        self.grid = (sides[0] // patch_size, sides[1] // patch_size)
        self.position_resize, self.dtype = position_resize, dtype
        self.taps = (depth,) if taps is None else tuple(taps)
        if not set(self.taps) <= set(range(depth + 1)):
            fail("taps", f"numbers from 0 to {depth}", taps)
        self.features, self.strides = (width,) * len(self.taps), (patch_size,) * len(self.taps)
        self.embed = patch_embedding(in_features, width, patch_size, use_bias=patch_bias, dtype=dtype, rngs=rngs)
        self.class_token = nnx.Param(NARROW(rngs.params(), (1, width)))
        self.positions = nnx.Param(NARROW(rngs.params(), (1 + math.prod(self.grid), width)))
        options: dict[str, Any] = dict(epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            Block(width, num_heads, mlp_ratio * width, drop_path=rate, **options) for rate in rising(drop_path, depth)
        )
        self.norm = layer_norm(width, rngs, epsilon=epsilon)
        self.classifier = None if num_classes is None else classifier(width, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, ...]:
        """The maps of x."""
        return self.encode(x, rngs=rngs)[1]

    def encode(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Tokens and maps.

        Args:
            x: image [B, H, W, Cin].
            rngs: of dropped paths, or None.

        Returns:
            (tokens, maps): after the final norm, [B, 1 + h w, width], the class token first; and the maps of `taps`.
        """
        check_features("x", x, self.in_features)
        y, grid = self._embed(x)
        outputs = [y]
        for block in self.blocks:
            outputs.append(block(outputs[-1], rngs))
        outputs[-1] = normalise(self.norm, outputs[-1], self.dtype)
        maps = (outputs[tap][:, 1:].reshape(x.shape[0], *grid, y.shape[2]) for tap in self.taps)
        return outputs[-1].astype(x.dtype), tuple(y.astype(x.dtype) for y in maps)

    def classify(self, tokens: jax.Array) -> jax.Array:
        """Logits [B, num_classes] of the class token, the first of the tokens that `encode` returns."""
        logits: jax.Array = require(self.classifier)(tokens[:, 0]).astype(tokens.dtype)
        return logits

    def _embed(self, x: jax.Array) -> tuple[jax.Array, Pair]:
        """Tokens with their positions, and the grid of patches."""
        margins = [(0, -n % self.patch_size) for n in x.shape[1:3]]
        patches = self.embed(jnp.pad(x, ((0, 0), *margins, (0, 0))))
        batch, height, width, features = patches.shape
        patches = patches + self._grid_positions((height, width)).astype(patches.dtype)
        tokens = patches.reshape(batch, height * width, features)
        first = (self.class_token[...] + self.positions[:1])[None].astype(tokens.dtype)
        first = jnp.zeros_like(tokens[:, :1]) + first  # sharded as the others are
        return jnp.concatenate([first, tokens], axis=1), (height, width)

    def _grid_positions(self, grid: Pair) -> jax.Array:
        """Position embeddings [1, h, w, width]."""
        table = self.positions[1:].reshape(1, *self.grid, -1)
        same_number = math.prod(grid) == math.prod(self.grid)
        if same_number and (grid[0] == grid[1] or self.position_resize != "bicubic-antialias"):
            return table.reshape(1, *grid, -1)
        return resize(table, size=grid, **RESIZINGS[self.position_resize])
