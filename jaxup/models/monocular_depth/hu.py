"""Depth from one image by fused features of several scales (Hu et al., WACV 2019), also with index networks."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, fail
from jaxup.models.backbones.layers import ConvNorm, conv, through
from jaxup.models.monocular_depth.layers import UpProjection, fit
from jaxup.models.segmentation.heads import Backbone, build_backbone, run_backbone
from jaxup.nn.indexnet import IndexNetwork
from jaxup.ops.index import indexed_upsample

_FUSED = 16  # channels of each map that is fused


class HuDepthNetwork(nnx.Module):
    """Hu et al.'s depth network: a decoder of up-projections, and beside it all maps of the backbone at one size.

        d = f1x1(b_4),   d = P(up(d, size of b_i)) for i = 3, 2, 1,   d = P(up(d, twice the size of b_1))
        m = f5x5([P_i(up(b_i, size of d)) for i = 1 ... 4])
        depth = conv5x5(f5x5(f5x5([d, m])))

    b_1 to b_4 are the maps of the backbone at the strides 4 to 32, f_k x k convolutions with norm and ReLU, and P(x) =
    relu(norm(conv3x3(f5x5(x))) + norm(conv5x5(x))), which halves the channels of d and gives 16 of b_i.

    With the upsampler "indexnet", Index Networks' Table 11, holistic index networks on the maps at the strides 2, 4, 8
    and 16 predict index maps that take the place of bilinear interpolation in both branches; m is enlarged step by step
    by the same maps as d, as their Fig. 13 has it. The paper says no more, and does not print the size: that there are
    four, one on the stem's map, is a choice made here, so that no step is left to interpolation. The backbone keeps its
    strides.

    Parameters: ResNet-50 67,569,473, SENet-154 157,101,425, DenseNet-161 77,101,151. Index networks, nonlinear with
    context, add 44,193,536 to ResNet-50.

    Args:
        backbone: "resnet50", "senet154", "densenet161", another name of `make_backbone`, a backbone, or a function
            `(dtype=, rngs=)` that builds one; with five maps from stride 2 on.
        upsampler: "bilinear" or "indexnet".
        align_corners: of bilinear interpolation. The published weights were trained with it: PyTorch 0.3 did nothing
            else, while with later ones the same code has False.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, 3], of which ImageNet's mean was taken off and which was divided by its deviation
        -> depth [B, h, w, 1] in the dtype of x, twice the size of b_1: half that of x where its sides are multiples of
        4. In metres after training on those; it may be negative.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, 3].

    Example:
        >>> run = lambda x: HuDepthNetwork(backbone="resnet18", rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 33, 64, 3))).shape
        (1, 18, 32, 1)

    Reference:
        Hu et al., Revisiting Single Image Depth Estimation: Toward Higher Resolution Maps with Accurate Object
        Boundaries, WACV 2019; official code: JunjH/Revisiting_Single_Depth_Estimation (no licence). Lu et al., Index
        Networks, TPAMI 2020, Sec. 6.4 and Table 11.
    """

    def __init__(
        self,
        *,
        backbone: Backbone = "resnet50",
        upsampler: str = "bilinear",
        align_corners: bool = True,
        nonlinear: bool = True,
        context: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("upsampler", upsampler, ("bilinear", "indexnet"))
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.backbone = build_backbone(backbone, **options)
        if tuple(self.backbone.strides) != (2, 4, 8, 16, 32):
            fail("backbone", "one with maps at the strides 2, 4, 8, 16 and 32", repr(backbone))
        _, *widths = self.backbone.features
        halves = [widths[-1] // 2**i for i in range(1, 6)]
        self.reduce = ConvNorm(widths[-1], halves[0], 1, **options)
        self.up = nnx.List(UpProjection(ConvNorm, i, o, **options) for i, o in itertools.pairwise(halves))
        self.fusion = nnx.List(UpProjection(ConvNorm, width, _FUSED, **options) for width in widths)
        self.fuse = ConvNorm(_FUSED * len(widths), _FUSED * len(widths), 5, **options)
        joined = _FUSED * len(widths) + halves[-1]
        self.refine = nnx.List(ConvNorm(joined, joined, 5, **options) for _ in range(2))
        self.head = conv(joined, 1, 5, **options)
        of_indices: dict[str, Any] = dict(family="holistic", nonlinear=nonlinear, context=context)
        self.index_networks = nnx.List(
            IndexNetwork(width, **of_indices, **options)
            for width in (self.backbone.features[:-1] if upsampler == "indexnet" else ())
        )
        self.align_corners = align_corners

    def __call__(self, x: jax.Array) -> jax.Array:
        """The depth of x."""
        maps = run_backbone(self.backbone, x, None)
        sizes = [y.shape[1:3] for y in maps]
        sizes[0] = (2 * sizes[1][0], 2 * sizes[1][1])
        indices = self._indices(maps)
        y = self.reduce(maps[-1])
        for i, layer in zip((3, 2, 1, 0), self.up, strict=True):
            y = self._enlarge(layer, y, sizes[i : i + 1], indices[i : i + 1])
        parts = [
            self._enlarge(layer, z, sizes[: i + 1], indices[: i + 1])
            for i, (layer, z) in enumerate(zip(self.fusion, maps[1:], strict=True))
        ]
        fused = self.fuse(jnp.concatenate(parts, axis=3))
        depth = self.head(through(self.refine, jnp.concatenate([y, fused], axis=3)))
        return depth.astype(x.dtype)

    def _indices(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Index maps by which each coarser map doubles, from the finer ones, which odd sides make smaller or larger."""
        pairs = zip(self.index_networks, maps, maps[1:], strict=False)
        return [network(fit(y, (2 * z.shape[1], 2 * z.shape[2]))).decoder for network, y, z in pairs]

    def _enlarge(
        self, layer: UpProjection, x: jax.Array, sizes: Sequence[tuple[int, ...]], indices: Sequence[jax.Array]
    ) -> jax.Array:
        """A layer of x at the first of the sizes: at once by interpolation, or step by step through all of them."""
        if not self.index_networks:
            return layer.of_resized(x, sizes[0], method="bilinear", align_corners=self.align_corners)
        for size, index in zip(sizes[::-1], indices[::-1], strict=True):
            x = fit(indexed_upsample(x, index.astype(x.dtype)), size)
        return layer(x)
