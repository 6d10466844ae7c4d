"""SegFormer (Xie et al., NeurIPS 2021), with both of the decode heads that there are."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_int
from jaxup.models.backbones import BACKBONES, MiT
from jaxup.models.backbones.layers import ConvNorm, classifier, linear
from jaxup.models.segmentation.layers import check_rate, drop_channels
from jaxup.models.segmentation.upsampling import Build, Upsampling, fuse_resized

HEADS = ("mmseg", "nvlabs")
_NAMES = tuple(f"mit_b{i}" for i in range(6))
# Of the norms after patches and reduction; the others have 1e-6 in both codes.
_EMBED_EPSILON = {"mmseg": 1e-6, "nvlabs": 1e-5}


class SegFormer(nnx.Module):
    """A Mix Transformer, whose four maps are projected, brought to stride 4 and fused.

        p_i = project_i(c_i),   u_1 = p_1,   u_i = up_i(p_i; p_{i-1}, ..., p_1)
        logits = classify(dropout(fuse([u_1, u_2, u_3, u_4])))

    with fuse = relu(bn(conv1x1)). In the head of mmsegmentation, on which upsamplers are compared, project is
    relu(bn(conv1x1)) to 256 channels; in that of NVlabs and of Hugging Face it is a linear layer to 256 channels (B0,
    B1) or 768, and the maps are joined in the opposite order, coarse to fine.

    up_i enlarges 2, 4 and 8 times: ReSFU by three direct modules under p_1, most others by six x2 modules, each under
    the adjacent p (see `Upsampling`).

    Norms of a backbone by name have the epsilons of the head's code. Those of Hugging Face are 1e-5 everywhere:
    `backbone=make_backbone("mit_b0", epsilon=1e-5, embed_epsilon=1e-5, rngs=rngs)`.

    Parameters for 150 classes, with the head "mmseg" and "nvlabs": B0 3,753,718 and 3,752,694; B1 13,716,822 and
    13,715,798; B2 24,761,686 and 27,461,974; B3 44,637,526 and 47,337,814; B4 61,408,086 and 64,108,374; B5
    82,008,406 and 84,708,694.

    Args:
        num_classes: channels of the logits.
        in_features: channels of the image, for a backbone by name.
        backbone: "mit_b0" to "mit_b5", or a `MiT`.
        head: "mmseg" or "nvlabs".
        features: channels of the projected maps; None is 256, and 768 for "nvlabs" from B2 on.
        upsampler: of the three coarser maps, see `Upsampling`.
        dropout: the probability with which training drops channels before the classifier.
        drop_path: that of the backbone's last block, for a backbone by name.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: image [B, H, W, Cin] -> logits [B, ceil(H / 4), ceil(W / 4), num_classes] in the dtype
        of x. `module.outputs(x, rngs=None)`: {"logits", "features": the backbone's maps}. Only with `rngs` anything is
        dropped.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin] or too small.

    Example:
        >>> run = lambda x: SegFormer(150, upsampler="resfu", rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 70, 64, 3))).shape
        (1, 18, 16, 150)

    Reference:
        Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, NeurIPS 2021;
        Zhou et al., A Refreshed Similarity-based Upsampler, 2024, Sec. 5.2.3. Official code: NVlabs/SegFormer
        (non-commercial), mmsegmentation and Hugging Face transformers (Apache-2.0).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_features: int = 3,
        backbone: str | MiT = "mit_b0",
        head: str = "mmseg",
        features: int | None = None,
        upsampler: Build = "bilinear",
        dropout: float = 0.1,
        drop_path: float = 0.1,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_int("num_classes", num_classes)
        check_choice("head", head, HEADS)
        self.head, self.dropout = head, check_rate("dropout", dropout)
        wide = head == "nvlabs" and backbone in _NAMES[2:]
        features = (768 if wide else 256) if features is None else check_int("features", features)
        layer: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        if isinstance(backbone, str):
            check_choice("backbone", backbone, _NAMES)
            options = layer | dict(drop_path=check_rate("drop_path", drop_path), embed_epsilon=_EMBED_EPSILON[head])
            backbone = MiT(in_features, **{**BACKBONES[backbone][1], **options})
        self.backbone, widths = backbone, backbone.features
        self.project = nnx.List(
            ConvNorm(width, features, 1, **layer) if head == "mmseg" else linear(width, features, **layer)
            for width in widths
        )
        self.up = nnx.List(
            Upsampling(
                upsampler,
                in_features=features,
                guides=(features,) * n,
                scale=2**n,
                image_features=self.backbone.in_features,
                **layer,
            )
            for n in range(1, len(widths))
        )
        self.fuse = ConvNorm(len(widths) * features, features, 1, **layer)
        self.classifier = classifier(features, num_classes, **layer)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Logits, and the backbone's maps."""
        maps = self.backbone(x, rngs=rngs)
        projected = [project(y) for project, y in zip(self.project, maps, strict=True)]
        fused = drop_channels(self._fused(projected, x), self.dropout, rngs)
        return {"logits": self.classifier(fused).astype(x.dtype), "features": maps}

    def _fused(self, projected: Sequence[jax.Array], x: jax.Array) -> jax.Array:
        """Projected maps at the size of the first, joined and fused."""
        order = 1 if self.head == "mmseg" else -1
        methods = [up.method for up in self.up if up.method]
        if len(methods) == len(self.up):
            size = projected[0].shape[1:3]
            return fuse_resized(self.fuse, projected[::order], size, ("nearest", *methods)[::order])
        levels = [projected[0], *(up(projected[n], projected[:n], x) for n, up in enumerate(self.up, start=1))]
        return self.fuse(jnp.concatenate(levels[::order], axis=-1))
