"""UperNet (Xiao et al., ECCV 2018): pyramid pooling, feature pyramid, and fusion of all its levels."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_int
from jaxup.models.backbones.layers import ConvNorm
from jaxup.models.segmentation.heads import (
    Backbone,
    Classifier,
    PyramidPooling,
    auxiliary_head,
    build_backbone,
    check_maps,
    run_backbone,
)
from jaxup.models.segmentation.upsampling import Build, Upsampling, extend, fuse_resized
from jaxup.nn.indexnet import IndexNetwork
from jaxup.ops.index import indexed_upsample


class UperNetHead(nnx.Module):
    """Decoder of UperNet: from the maps of a backbone at four strides to logits at the finest.

        p_n = f([c_n, its pyramid pooling]),    p_i = l(c_i) + up(p_{i+1}),    o_i = f(p_i),    o_n = p_n
        logits = conv1x1(dropout(f([o_1, up(o_2), ..., up(o_n)])))

    f are 3x3, l 1x1 convolutions, each with norm and ReLU. The upsamplers of the pyramid (FPN) and of the fusion (MFF)
    are exchanged separately. Guides are the maps l(c_i); those that double go through all levels between, step by step.

    With "indexnet" one linear holistic index network on each c_i but the last predicts the index map of its
    resolution, and the pyramid and the fusion upsample with the same maps, as in Index Networks' Fig. 13.

    Args:
        in_features: channels of the maps, fine to coarse.
        num_classes: channels of the logits.
        features: of the pyramid.
        pool_features: of the pooling branches; None: as `features`. CSAILVision has 512 for any `features`.
        pool_scales: the means are over grids of so many cells in each direction.
        resize_first: the means are resized before their convolution, as in CSAILVision's code, and not after.
        auxiliary_features: of an auxiliary head on the map before the last; None: no such head.
        auxiliary_layers: its 3x3 convolutions.
        auxiliary_joined: whether one more convolution sees their result beside the map.
        dropout: of channels before both classifiers, in calls with `rngs`.
        upsampler: of the pyramid: a name of `nn.UPSAMPLERS`, or a function, see `Upsampling`.
        fusion_upsampler: of the fusion; None: as `upsampler`.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(maps, rngs=None)`: maps [B, H_i, W_i, C_i] -> logits [B, H_1, W_1, num_classes] in their dtype, without
        softmax. `module.outputs(maps, rngs=None)`: {"logits", "auxiliary" at the size of its map (if there is one),
        "features": o_i}.

    Raises:
        ValueError: a wrong option, or maps of other channels.

    Example:
        >>> head = UperNetHead((4, 6, 8), 3, features=5, rngs=nnx.Rngs(0))
        >>> head.eval()
        >>> maps = [jnp.ones((1, 7, 10, 4)), jnp.ones((1, 4, 5, 6)), jnp.ones((1, 2, 3, 8))]
        >>> nnx.eval_shape(head, maps).shape
        (1, 7, 10, 3)

    Reference:
        Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018. Official weights: mmsegmentation,
        Hugging Face (Apache-2.0), CSAILVision (BSD-3-Clause). Index networks: Lu et al., Index Networks, TPAMI 2020,
        Sec. 6.3, Fig. 13 and Table 9.
    """

    def __init__(
        self,
        in_features: Sequence[int],
        num_classes: int,
        *,
        features: int = 512,
        pool_features: int | None = None,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        resize_first: bool = False,
        auxiliary_features: int | None = None,
        auxiliary_layers: int = 1,
        auxiliary_joined: bool = False,
        dropout: float = 0.1,
        upsampler: Build = "bilinear",
        fusion_upsampler: Build | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = tuple(check_int("in_features", width) for width in in_features)
        f, options = check_int("features", features), dict[str, Any](dtype=dtype, rngs=rngs)
        *finer, last = self.in_features
        branches = f if pool_features is None else pool_features
        self.pooling = PyramidPooling(last, branches, pool_scales, resize_first=resize_first, **options)
        self.bottleneck = ConvNorm(self.pooling.features, f, 3, **options)
        self.laterals = nnx.List(ConvNorm(width, f, 1, **options) for width in finer)
        self.smooth = nnx.List(ConvNorm(f, f, 3, **options) for _ in finer)
        self.fuse = ConvNorm(len(self.in_features) * f, f, 3, **options)
        fusion_upsampler = upsampler if fusion_upsampler is None else fusion_upsampler
        self.index_networks = nnx.List(
            IndexNetwork(width, family="holistic", nonlinear=False, context=False, **options)
            for width in (finer if "indexnet" in (upsampler, fusion_upsampler) else ())
        )
        # Nothing where the index maps are used.
        self.upsamplers = nnx.List(
            Upsampling(upsampler, in_features=f, guides=(f,), scale=2, **options)
            for _ in (finer if upsampler != "indexnet" else ())
        )
        self.fusion_upsamplers = nnx.List(
            Upsampling(fusion_upsampler, in_features=f, guides=(f,) * i, scale=2**i, **options)
            for i in (range(1, len(self.in_features)) if fusion_upsampler != "indexnet" else ())
        )
        self.classifier = Classifier(f, num_classes, dropout=dropout, **options)
        of_auxiliary = dict[str, Any](layers=auxiliary_layers, joined=auxiliary_joined, dropout=dropout, **options)
        self.auxiliary = auxiliary_head(self.in_features[-2], num_classes, auxiliary_features, **of_auxiliary)

    def __call__(self, maps: Sequence[jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits from the maps of a backbone."""
        logits: jax.Array = self.outputs(maps, rngs)["logits"]
        return logits

    def outputs(self, maps: Sequence[jax.Array], rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Logits, auxiliary logits and the levels that are fused."""
        check_maps(maps, self.in_features)
        laterals = [layer(y) for layer, y in zip(self.laterals, maps[:-1], strict=True)]
        indices = [_even_index(network, y) for network, y in zip(self.index_networks, maps, strict=False)]
        levels = [self.pooling.fused(maps[-1], self.bottleneck)]
        for i in reversed(range(len(laterals))):
            y = _enlarge(self.upsamplers, i, levels[0], laterals[i : i + 1], indices[i : i + 1])
            levels.insert(0, laterals[i] + y)
        levels = [*(layer(y) for layer, y in zip(self.smooth, levels[:-1], strict=True)), levels[-1]]
        methods = [up.method for up in self.fusion_upsamplers if up.method]
        if len(methods) == len(levels) - 1:
            y = fuse_resized(self.fuse, levels, laterals[0].shape[1:3], ("nearest", *methods))
        else:
            parts = [levels[0]]
            for i, y in enumerate(levels[1:]):
                parts.append(_enlarge(self.fusion_upsamplers, i, y, laterals[: i + 1], indices[: i + 1]))
            y = self.fuse(jnp.concatenate(parts, axis=3))
        dtype = maps[0].dtype
        found: dict[str, Any] = {"features": tuple(z.astype(dtype) for z in levels)}
        found["logits"] = self.classifier(y, rngs).astype(dtype)
        if self.auxiliary is not None:
            found["auxiliary"] = self.auxiliary(maps[-2], rngs).astype(dtype)
        return found


def _even_index(network: IndexNetwork, x: jax.Array) -> jax.Array:
    """The index map for upsampling to a map; odd sides have one row or column more."""
    return network(extend(x, [side % 2 for side in x.shape[1:3]])).decoder


def _enlarge(
    upsamplers: Sequence[Any], number: int, x: jax.Array, guides: Sequence[jax.Array], indices: Sequence[jax.Array]
) -> jax.Array:
    """The size of the first guide: by the upsampler of this number, or step by step with the index maps."""
    if upsamplers:
        y: jax.Array = upsamplers[number](x, guides)
        return y
    for guide, index in zip(guides[::-1], indices[::-1], strict=True):
        x = indexed_upsample(x, index.astype(x.dtype))[:, : guide.shape[1], : guide.shape[2]]
    return x


class UperNet(nnx.Module):
    """UperNet: a backbone and `UperNetHead` on its last four maps.

    The seven rows of Index Networks' Table 9 are `backbone="mobilenet_v2"` with `upsampler` (FPN) and
    `fusion_upsampler` (MFF) of "bilinear", "indexnet" and "carafe".

    Args:
        num_classes: channels of the logits.
        backbone: a name of `make_backbone`, a backbone, or a function `(dtype=, rngs=)` that builds one.
        features: of the pyramid.
        pool_features: of the pooling branches, see `UperNetHead`.
        pool_scales: of the pooling branches.
        resize_first: see `UperNetHead`.
        auxiliary_features: of the auxiliary head on the third map, whose loss counts 0.4 times; None: no such head.
        dropout: of channels before both classifiers, in calls with `rngs`.
        upsampler: of the pyramid: a name of `nn.UPSAMPLERS`, or a function, see `Upsampling`.
        fusion_upsampler: of the fusion; None: as `upsampler`.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: image [B, H, W, Cin] -> logits [B, h, w, num_classes] in the dtype of x, at the stride
        of the first of the four maps, 4. `module.outputs(x, rngs=None)`: {"logits", "auxiliary" at stride 16 (if there
        is such a head), "features": the levels that are fused}.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: UperNet(5, backbone="resnet18", features=16, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 33, 64, 3))).shape
        (1, 9, 16, 5)

    Reference:
        Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018. The upsamplers: Lu et al., Index
        Networks, TPAMI 2020, Sec. 6.3 and Table 9.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = "resnet50",
        features: int = 512,
        pool_features: int | None = None,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        resize_first: bool = False,
        auxiliary_features: int | None = 256,
        dropout: float = 0.1,
        upsampler: Build = "bilinear",
        fusion_upsampler: Build | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone = build_backbone(backbone, dtype=dtype, rngs=rngs)
        self.head = UperNetHead(
            self.backbone.features[-4:],
            num_classes,
            features=features,
            pool_features=pool_features,
            pool_scales=pool_scales,
            resize_first=resize_first,
            auxiliary_features=auxiliary_features,
            dropout=dropout,
            upsampler=upsampler,
            fusion_upsampler=fusion_upsampler,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Logits, auxiliary logits and the levels that are fused."""
        return self.head.outputs(run_backbone(self.backbone, x, rngs)[-len(self.head.in_features) :], rngs)
