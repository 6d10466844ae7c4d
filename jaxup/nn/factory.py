"""Every upsampler by its name, and all of them called alike: `up(x)`, or `up(x, guide)` where there is a guide."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
from flax import nnx

from jaxup._checks import Pair, check_int, check_shape, fail, pair
from jaxup.nn.a2u import A2UUpsample
from jaxup.nn.anyup import AnyUp
from jaxup.nn.attention import AttentionUpsample, JointAttentionUpsample
from jaxup.nn.basic import Deconvolution, PixelShuffle, Resize
from jaxup.nn.carafe import CARAFE
from jaxup.nn.dysample import DySample
from jaxup.nn.fade import FADE
from jaxup.nn.indexnet_decoder import IndexNetUpsample
from jaxup.nn.jbu import JBU, StackJBU
from jaxup.nn.pac import PacConvTranspose, PacJointUpsample
from jaxup.nn.resfu import ReSFU
from jaxup.nn.sapa import SAPA
from jaxup.nn.unpooling import MaxUnpool
from jaxup.ops.resize import resize

# Which scales there are, and how an error names them.
Scales = tuple[Callable[[Pair], bool], str]
ANY: Scales = (lambda scale: True, "an integer >= 1 or a pair")
TWO: Scales = (lambda scale: scale == (2, 2), "2")
POWERS: Scales = (lambda s: s[0] == s[1] and s[0] > 1 and s[0] & (s[0] - 1) == 0, "a power of two")


@dataclass(frozen=True)
class Upsampler:
    """An entry of `UPSAMPLERS`.

    Attributes:
        module: the class that `make_upsampler` builds.
        guided: whether it is called `up(x, guide)`.
        scales: which scales it takes, in words.
        paper: where it is described.
        official: the published code and its licence; empty where there is none.
    """

    module: type[nnx.Module]
    guided: bool
    paper: str
    official: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    allowed: Scales = field(default=ANY, repr=False)

    @property
    def scales(self) -> str:
        """Which scales it takes, in words."""
        return self.allowed[1]


_ATTENTION = "Kundu et al., Attention-based Image Upsampling, 2020"
_INDEX = "Lu et al., Index Networks, TPAMI 2020"
_FADE = "Lu et al., FADE, ECCV 2022"
_FEATUP = "Fu et al., FeatUp, ICLR 2024"
_PAC = "Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019"

_blind, _guided = partial(Upsampler, guided=False), partial(Upsampler, guided=True)

UPSAMPLERS: Mapping[str, Upsampler] = MappingProxyType(
    {
        "nearest": _blind(Resize, paper="", options={"method": "nearest"}),
        "bilinear": _blind(Resize, paper="", options={"method": "bilinear"}),
        "bicubic": _blind(Resize, paper="Keys, TASSP 1981", options={"method": "bicubic"}),
        "deconvolution": _blind(Deconvolution, paper="Zeiler et al., Deconvolutional Networks, CVPR 2010"),
        "pixel_shuffle": _blind(PixelShuffle, paper="Shi et al., Sub-Pixel CNN, CVPR 2016"),
        "attention": _blind(AttentionUpsample, paper=_ATTENTION),
        "carafe": _blind(CARAFE, paper="Wang et al., CARAFE, ICCV 2019", official="open-mmlab/mmcv, Apache-2.0"),
        "dysample": _blind(DySample, paper="Liu et al., DySample, ICCV 2023", official="tiny-smart/dysample, MIT"),
        "max_unpool": _guided(MaxUnpool, paper="Badrinarayanan et al., SegNet, TPAMI 2017"),
        "indexnet": _guided(IndexNetUpsample, paper=_INDEX, official="poppinace/indexnet_matting, non-commercial"),
        "joint_attention": _guided(JointAttentionUpsample, paper=_ATTENTION),
        "sapa": _guided(SAPA, paper="Lu et al., SAPA, NeurIPS 2022", official="poppinace/sapa, MIT"),
        "fade": _guided(FADE, paper=_FADE, official="poppinace/fade, MIT (readme: academic use)"),
        "fade_lite": _guided(
            FADE, paper=_FADE, official="poppinace/fade, MIT (readme: academic use)", options={"lite": True}
        ),
        "a2u": _guided(
            A2UUpsample, paper="Dai et al., A2U, CVPR 2021", official="dongdong93/a2u_matting, MIT", allowed=TWO
        ),
        "resfu": _guided(ReSFU, paper="Zhou et al., ReSFU, 2024", official="zmhhmz/ReSFU, none"),
        "jbu": _guided(JBU, paper=_FEATUP, official="mhamilton723/FeatUp, MIT"),
        "stack_jbu": _guided(StackJBU, paper=_FEATUP, official="mhamilton723/FeatUp, MIT", allowed=POWERS),
        "pac": _guided(PacConvTranspose, paper=_PAC, official="NVlabs/pacnet, CC BY-NC-SA 4.0"),
        "pac_joint": _guided(PacJointUpsample, paper=_PAC, official="NVlabs/pacnet, CC BY-NC-SA 4.0", allowed=POWERS),
        "anyup": _guided(AnyUp, paper="Wimmer et al., AnyUp, 2025", official="wimmerth/anyup, CC BY 4.0"),
    }
)
"""All upsamplers of `make_upsampler` by name."""


def make_upsampler(
    name: str,
    *,
    in_features: int,
    guide_features: int | None = None,
    scale: int | Pair,
    iterated: bool = False,
    rngs: nnx.Rngs,
    **options: Any,
) -> nnx.Module:
    """Build any upsampler by name: from C channels to C channels, `scale` times as large.

    Every module keeps its paper's defaults, but those of attention a window that fits the scale: K = 2s + 1.

    Args:
        name: a key of `UPSAMPLERS`.
        in_features: C.
        guide_features: channels of the guide; without influence where there is none, so that names can be exchanged.
        scale: integer upsampling factor, or a pair (vertical, horizontal), as far as `UPSAMPLERS[name].scales` goes.
        iterated: double log2(scale) times instead, each step with parameters of its own: see `Iterated`.
        rngs: source of the initial parameters.
        **options: further options of the constructor.

    Returns:
        A module: `up(x)`, or `up(x, guide)` if `UPSAMPLERS[name].guided`. x [B, h, w, C], guide [B, s*h, s*w, Cg] ->
        [B, s*h, s*w, C] in the dtype of x.

    Raises:
        ValueError: an unknown name (the nearest known one is suggested), a scale that this upsampler does not take, a
            guided upsampler without guide_features, an unknown or wrong option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> x, guide = jnp.ones((1, 5, 6, 8)), jnp.ones((1, 10, 12, 8))
        >>> for name in ("bilinear", "carafe", "sapa"):
        ...     up = make_upsampler(name, in_features=8, guide_features=8, scale=2, rngs=nnx.Rngs(0))
        ...     out = up(x, guide) if UPSAMPLERS[name].guided else up(x)
        >>> out.shape
        (1, 10, 12, 8)

    Reference:
        `UPSAMPLERS[name].paper`.
    """
    if name not in UPSAMPLERS:
        near = difflib.get_close_matches(str(name), UPSAMPLERS, 1, 0.0)
        fail("name", "one of " + ", ".join(UPSAMPLERS), f"{name!r}; did you mean {near[0]!r}?")
    entry, factor = UPSAMPLERS[name], pair("scale", scale)
    if entry.guided and guide_features is None:
        fail("guide_features", f"the channels of the guide, which {name} needs", None)
    build = partial(_build, name, check_int("in_features", in_features), guide_features, options)
    if iterated:
        if not POWERS[0](factor):
            fail("scale", f"{POWERS[1]} where doublings are iterated", scale)
        return Iterated(build=partial(build, (2, 2)), scale=factor[0], rngs=rngs)
    if not entry.allowed[0](factor):
        hint = "" if entry.allowed is POWERS else ", or iterated=True for a power of two"
        fail("scale", f"{entry.scales} for {name}{hint}", scale)
    return build(factor, rngs=rngs)


class Iterated(nnx.Module):
    """Doubling again and again: the form in which papers use x2 upsamplers for larger factors.

        y_0 = x,    y_n = up_n(y_{n-1}),  or  up_n(y_{n-1}, area(guide to twice the size of y_{n-1}))

    Args:
        build: makes one x2 upsampler from `rngs`.
        scale: 2^N.
        rngs: source of the initial parameters of all N.

    Returns:
        `module(x)` or `module(x, guide)`: as the upsamplers, `scale` times as large.

    Raises:
        ValueError: a scale that is no power of two, or a guide of another size.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = Iterated(build=lambda rngs: CARAFE(8, scale=2, rngs=rngs), scale=4, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 5, 6, 8))).shape
        (1, 20, 24, 8)

    Reference:
        Zhou et al., A Refreshed Similarity-based Upsampler, 2024, Sec. 5, iterates the upsamplers that it is compared
        with; Fu et al., FeatUp, ICLR 2024, stacks JBU.
    """

    def __init__(self, *, build: Callable[..., nnx.Module], scale: int, rngs: nnx.Rngs):
        if not POWERS[0]((check_int("scale", scale),) * 2):
            fail("scale", POWERS[1], scale)
        self.scale = scale
        self.steps = nnx.List([build(rngs=rngs) for _ in range(scale.bit_length() - 1)])

    def __call__(self, x: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Enlarge x, under the guide if there is one."""
        if guide is not None:
            check_shape("guide", guide, (x.shape[0], self.scale * x.shape[1], self.scale * x.shape[2], None))
        for step in self.steps:
            if guide is None:
                x = step(x)
            else:
                x = step(x, resize(guide, size=(2 * x.shape[1], 2 * x.shape[2]), method="area"))
        return x


def _build(
    name: str, in_features: int, guide_features: int | None, options: Mapping[str, Any], scale: Pair, *, rngs: nnx.Rngs
) -> nnx.Module:
    """The module of one entry: each constructor gets those of the common arguments that it has."""
    entry = UPSAMPLERS[name]
    common = {
        "in_features": in_features,
        "out_features": in_features,
        "guide_features": guide_features,
        "scale": scale[0] if entry.allowed is POWERS else scale,
        "rngs": rngs,
    }
    if "attention" in name:
        common["kernel_size"] = 2 * max(scale) + 1
    parameters = inspect.signature(entry.module.__init__).parameters
    given = {key: value for key, value in common.items() if key in parameters}
    try:
        return entry.module(**(given | dict(entry.options) | dict(options)))
    except TypeError as error:  # an argument that the constructor does not know
        raise ValueError(f"options: expected those of {entry.module.__name__}, got {error}") from error
