"""Feature pyramid network (Lin et al., CVPR 2017), and semantic segmentation on it (Kirillov et al., CVPR 2019)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_int, fail
from jaxup.models.backbones.layers import ConvNorm, conv
from jaxup.models.segmentation.heads import Backbone, Classifier, build_backbone, check_maps, run_backbone
from jaxup.models.segmentation.upsampling import Build, Upsampling
from jaxup.ops.resize import resize

GUIDES = ("adjacent", "finest")
EXTRAS = ("pool", "on_input", "on_lateral", "on_output")


class FPN(nnx.Module):
    """Feature pyramid network: maps of one width at all strides, with what the coarse ones know in the fine ones.

        p_n = conv1x1(c_n),    p_i = conv1x1(c_i) + up(p_{i+1}),    out_i = conv3x3(p_i)

    Further, coarser outputs are every second pixel of the last one ("pool"), or 3x3 convolutions of stride 2, the first
    of the last input, of p_n or of the last output, each next one of that before.

    Parameters: (C_1 + ... + C_n + n) F + n (9 F + 1) F with biases; each extra convolution on an output (9 F + 1) F.

    Args:
        in_features: C_i, channels of the input maps, fine to coarse.
        features: F, of the outputs.
        start: the first input that is used.
        num_outputs: how many maps there are; None is as many as inputs are used.
        extra: what the further ones are: "pool", "on_input", "on_lateral" or "on_output".
        relu_before_extra: rectify the extra map before the next convolution of it.
        norm: BatchNorm after each convolution, in the place of the bias.
        extra_norm: the same after the extra ones; None: as `norm`. torchvision has none there.
        upsampler: of the top-down path: a name of `nn.UPSAMPLERS`, or a function, see `Upsampling`. Its guide is the
            map that it is added to.
        guide: "finest": in its place the guide of all steps is the first of these maps, averaged over the pixels of
            the step.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(maps)`: maps [B, H_i, W_i, C_i], each of half the size, rounded up, of that before -> `num_outputs` maps
        [B, H_i, W_i, F], fine to coarse, in the dtype of the maps.

    Raises:
        ValueError: a wrong option, or maps of other channels.

    Example:
        >>> neck = FPN((4, 6, 8), features=5, num_outputs=4, rngs=nnx.Rngs(0))
        >>> maps = [jnp.ones((1, 7, 10, 4)), jnp.ones((1, 4, 5, 6)), jnp.ones((1, 2, 3, 8))]
        >>> [y.shape for y in nnx.eval_shape(neck, maps)]
        [(1, 7, 10, 5), (1, 4, 5, 5), (1, 2, 3, 5), (1, 1, 2, 5)]

    Reference:
        Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017. Official weights: torchvision
        (BSD-3-Clause), mmsegmentation and mmdetection (Apache-2.0).
    """

    def __init__(
        self,
        in_features: Sequence[int],
        *,
        features: int = 256,
        start: int = 0,
        num_outputs: int | None = None,
        extra: str = "pool",
        relu_before_extra: bool = False,
        norm: bool = False,
        extra_norm: bool | None = None,
        upsampler: Build = "nearest",
        guide: str = "adjacent",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("guide", guide, GUIDES)
        self.guide = guide
        self.in_features = tuple(check_int("in_features", width) for width in in_features)
        self.start, used = check_int("start", start, 0), self.in_features[start:]
        count = len(used) if num_outputs is None else check_int("num_outputs", num_outputs)
        check_choice("extra", extra, EXTRAS)
        if not used or count < len(used):
            fail("num_outputs", f"at least the {max(1, len(used))} inputs from `start` on", count)
        f = self.features = check_int("features", features)
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.laterals = nnx.List(_layer(width, f, 1, norm=norm, **options) for width in used)
        self.smooth = nnx.List(_layer(f, f, 3, norm=norm, **options) for _ in used)
        extra_norm = norm if extra_norm is None else extra_norm
        first = used[-1] if extra == "on_input" else f
        self.extra_layers = nnx.List(
            _layer(f if i else first, f, 3, stride=2, norm=extra_norm, **options)
            for i in range(0 if extra == "pool" else count - len(used))
        )
        self.extra, self.pooled = extra, count - len(used) if extra == "pool" else 0
        self.relu_before_extra = bool(relu_before_extra)
        self.upsamplers = nnx.List(
            Upsampling(upsampler, in_features=f, guides=(f,), scale=2, **options) for _ in used[1:]
        )

    def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """The pyramid on these maps."""
        check_maps(maps, self.in_features)
        maps = maps[self.start :]
        levels = [lateral(y) for lateral, y in zip(self.laterals, maps, strict=True)]
        finest = levels[0]
        for i in reversed(range(len(levels) - 1)):
            guide = levels[i]
            if self.guide == "finest" and i:
                guide = resize(finest, size=guide.shape[1:3], method="area")
            levels[i] = levels[i] + self.upsamplers[i](levels[i + 1], [guide])
        outputs = [layer(y) for layer, y in zip(self.smooth, levels, strict=True)]
        source = {"on_input": maps[-1], "on_lateral": levels[-1]}.get(self.extra, outputs[-1])
        for i, layer in enumerate(self.extra_layers):
            source = layer(nnx.relu(source) if i and self.relu_before_extra else source)
            outputs.append(source)
        for _ in range(self.pooled):
            outputs.append(outputs[-1][:, ::2, ::2])
        return tuple(y.astype(maps[0].dtype) for y in outputs)


def _layer(inputs: int, outputs: int, size: int, *, norm: bool, stride: int = 1, **options: Any) -> nnx.Module:
    if norm:
        return ConvNorm(inputs, outputs, size, stride=stride, activation=None, **options)
    return conv(inputs, outputs, size, stride=stride, **options)


class FPNHead(nnx.Module):
    """Head of Semantic FPN: the levels of a pyramid, each brought to the finest by convolutions and doublings, summed.

        logits = conv1x1(dropout(f_0(p_0) + ... + f_n(p_n))),    f_i = i times [relu(norm(conv3x3)), bilinear doubling]

    and f_0 one convolution without doubling. Sizes that are not exactly half the one before are resized.

    Args:
        in_features: C_i, channels of the maps, fine to coarse, each at twice the stride of the one before.
        num_classes: channels of the logits.
        features: of the convolutions.
        dropout: of channels, in calls with `rngs`.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(maps, rngs=None)`: maps [B, H_i, W_i, C_i] -> logits [B, H_0, W_0, num_classes] in their dtype.

    Raises:
        ValueError: a wrong option, or maps of other channels.

    Example:
        >>> head = FPNHead((4, 4), 3, features=5, rngs=nnx.Rngs(0))
        >>> head.eval()
        >>> nnx.eval_shape(head, [jnp.ones((1, 7, 10, 4)), jnp.ones((1, 4, 5, 4))]).shape
        (1, 7, 10, 3)

    Reference:
        Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, Sec. 3. Official weights: mmsegmentation
        (Apache-2.0).
    """

    def __init__(
        self,
        in_features: Sequence[int],
        num_classes: int,
        *,
        features: int = 128,
        dropout: float = 0.1,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = tuple(check_int("in_features", width) for width in in_features)
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.levels: nnx.List[Any] = nnx.List(
            nnx.List(ConvNorm(features if k else width, features, 3, **options) for k in range(max(1, i)))
            for i, width in enumerate(self.in_features)
        )
        self.classifier = Classifier(features, num_classes, dropout=dropout, **options)

    def __call__(self, maps: Sequence[jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits from the maps of a pyramid."""
        check_maps(maps, self.in_features)
        total: Any = None
        for i, (layers, y) in enumerate(zip(self.levels, maps, strict=True)):
            for layer in layers:
                y = resize(layer(y), scale=2) if i else layer(y)
            total = y if total is None else total + resize(y, size=total.shape[1:3])
        return self.classifier(total, rngs).astype(maps[0].dtype)


class SemanticFPN(nnx.Module):
    """Semantic FPN: backbone, feature pyramid, and the head that sums its levels.

    Parameters with 150 classes and ResNet-50: 28,495,574 with the plain stem.

    Args:
        num_classes: channels of the logits.
        backbone: a name of `make_backbone`, a backbone, or a function `(dtype=, rngs=)` that builds one; its
            last four maps count.
        features: of the pyramid.
        head_features: of the head.
        dropout: of channels before the classifier, in calls with `rngs`.
        upsampler: of the pyramid's top-down path, see `FPN`.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: image [B, H, W, Cin] -> logits [B, h, w, num_classes] in the dtype of x, at the stride
        of the first of the four maps, 4. `module.outputs(x, rngs=None)`: {"logits", "features": the pyramid's maps}.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: SemanticFPN(5, backbone="resnet18", features=16, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 33, 64, 3))).shape
        (1, 9, 16, 5)

    Reference:
        Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019. The upsampler: Zhou et al., A Refreshed
        Similarity-based Upsampler, 2024, Fig. 15.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = "resnet50",
        features: int = 256,
        head_features: int = 128,
        dropout: float = 0.1,
        upsampler: Build = "nearest",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.backbone = build_backbone(backbone, **options)
        widths = self.backbone.features[-4:]
        self.neck = FPN(widths, features=features, upsampler=upsampler, **options)
        self.head = FPNHead((features,) * len(widths), num_classes, features=head_features, dropout=dropout, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Logits and the pyramid's maps."""
        maps = self.neck(run_backbone(self.backbone, x, rngs)[-len(self.neck.in_features) :])
        return {"logits": self.head(maps, rngs), "features": maps}
