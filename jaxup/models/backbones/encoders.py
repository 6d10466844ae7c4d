"""Vision encoders whose patch features people use frozen: DINOv2, DINOv3, SigLIP's and CLIP's towers."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_choice, check_divides, check_features, check_int, fail
from jaxup.models.backbones.encoder_layers import ACTIVATIONS, BIASES, AttentionPool, EncoderBlock
from jaxup.models.backbones.encoder_positions import RESIZINGS, resize_table
from jaxup.models.backbones.layers import NARROW, patch_embedding
from jaxup.nn.norms import layer_norm, normalise
from jaxup.ops.rotary import Rotation, rotary_angles, rotary_periods

NORMED = ("tokens", "class")


class VisionEncoder(nnx.Module):
    """A Vision Transformer as DINOv2, DINOv3, SigLIP and CLIP have it: features of patches, of any block.

        tokens = [class, registers, conv_p(x) + positions]
        per block:  x + s1 * attention(norm(x)),  x + s2 * mlp(norm(x))

    with learned scales s1 and s2. The defaults are DINOv2 ViT-S/14; `make_backbone` has the others by name. Positions
    are a table that is resized to the image's grid, or a rotation of queries and keys of patches (DINOv3). Images whose
    sides are no multiples of the patch are extended by zeros at the bottom and on the right.

    The table is resized by "bicubic-offset" as the official DINOv2, "bicubic-antialias" as the official DINOv2 with
    registers, and timm, and "bicubic" as Hugging Face; a grid of its own size leaves it as it is. Attention to many
    patches is computed for a bounded number of queries at a time.

    Parameters: DINOv2 S/14 22,056,192, with registers 22,057,728, B/14 86,579,712, with registers 86,582,784, L/14
    304,367,616, with registers 304,371,712; DINOv3 S/16 21,596,160, S+/16 28,692,480, B/16 85,659,648, L/16
    303,128,576; SigLIP B/16 92,884,224; CLIP B/16 85,799,424, B/32 87,456,000, L/14 303,179,776.

    Args:
        in_features: channels of the image.
        patch_size: p.
        width: channels of the tokens.
        depth: blocks.
        num_heads: of the attention, a divisor of the width.
        hidden_features: channels inside the MLP.
        gated: whether the MLP is w3(silu(w1 x) * w2 x).
        activation: of the MLP otherwise: "gelu", "gelu_tanh" or "quick_gelu".
        image_size: for which there is a table of positions, a multiple of the patch.
        position_resize: "bicubic-offset", "bicubic-antialias" or "bicubic".
        class_token: whether there is one.
        class_position: whether the table has a row for it.
        num_registers: further tokens without a position.
        rotary_base: of the rotation by positions, instead of a table; None has a table.
        stored_periods: whether the periods of the rotation are a buffer, as in official files, or follow from the base.
        attention_bias: of "query, key, value", "query, value" or "none".
        layer_scale: whether branches have learned scales.
        epsilon: of all layer normalisations.
        patch_bias: whether the convolution of patches has a bias.
        first_norm: whether tokens are normalised before the first block (CLIP).
        normed: what the last norm is for: all "tokens", or the "class" token alone (CLIP), for `pool`.
        attention_pool: whether `pool` is attention of a learned query to all tokens (SigLIP).
        taps: blocks whose features are returned, counted from 1, with 0 the embedding; None is the last one.
        dtype: the type in which layers compute; parameters are float32, and so are norms and softmax.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin], normalised as its weights expect -> a map [B, ceil(H / p), ceil(W / p),
        width] for each tap, in the dtype of x, after the last norm if that is for all tokens.
        `module.encode(x)`: all tokens [B, T, width] of the last block, and these maps.
        `module.pool(tokens)`: the vector [B, width] that stands for the image.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> options = dict(patch_size=8, width=12, depth=2, num_heads=3, hidden_features=24, image_size=32)
        >>> run = lambda x: VisionEncoder(**options, taps=(1, 2), rngs=nnx.Rngs(0))(x)
        >>> [y.shape for y in nnx.eval_shape(run, jnp.ones((1, 20, 64, 3)))]
        [(1, 3, 8, 12), (1, 3, 8, 12)]

    Reference:
        Oquab et al., DINOv2, TMLR 2024, and facebookresearch/dinov2 (Apache-2.0). Darcet et al., Vision Transformers
        Need Registers, ICLR 2024. Simeoni et al., DINOv3, 2025. Zhai et al., Sigmoid Loss for Language Image
        Pre-Training, ICCV 2023. Radford et al., CLIP, ICML 2021.
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        patch_size: int = 14,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        hidden_features: int = 1536,
        gated: bool = False,
        activation: str = "gelu",
        image_size: int = 518,
        position_resize: str = "bicubic-offset",
        class_token: bool = True,
        class_position: bool = True,
        num_registers: int = 0,
        rotary_base: float | None = None,
        stored_periods: bool = False,
        attention_bias: str = "query, key, value",
        layer_scale: bool = True,
        epsilon: float = 1e-6,
        patch_bias: bool = True,
        first_norm: bool = False,
        normed: str = "tokens",
        attention_pool: bool = False,
        taps: Sequence[int] | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.patch_size = check_int("in_features", in_features), check_int("patch_size", patch_size)
        check_divides("num_heads", check_int("num_heads", num_heads), "width", check_int("width", width))
        check_divides("patch_size", patch_size, "image_size", check_int("image_size", image_size))
        check_int("num_registers", num_registers, 0)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("position_resize", position_resize, RESIZINGS)
        check_choice("attention_bias", attention_bias, BIASES)
        check_choice("normed", normed, NORMED)
        if rotary_base is not None and width // num_heads % 4:
            fail("width", f"a multiple of 4 * num_heads = {4 * num_heads} for a rotation", width)
        self.taps = (depth,) if taps is None else tuple(taps)
        if not set(self.taps) <= set(range(check_int("depth", depth) + 1)):
            fail("taps", f"numbers from 0 to {depth}", taps)
        self.features, self.strides = (width,) * len(self.taps), (patch_size,) * len(self.taps)
        self.num_heads, self.grid, self.position_resize = num_heads, image_size // patch_size, position_resize
        self.rotary_base, self.normed, self.dtype = rotary_base, normed, dtype
        self.embed = patch_embedding(in_features, width, patch_size, use_bias=patch_bias, dtype=dtype, rngs=rngs)
        rows = self.grid**2 + (1 if class_token and class_position else 0)
        self.class_token = nnx.Param(NARROW(rngs.params(), (1, width))) if class_token else None
        self.registers = nnx.Param(NARROW(rngs.params(), (num_registers, width))) if num_registers else None
        self.positions = nnx.Param(NARROW(rngs.params(), (rows, width))) if rotary_base is None else None
        periods = rotary_periods(rotary_base, width // num_heads) if stored_periods else None
        self.periods = None if periods is None else nnx.Variable(jnp.asarray(periods))
        self.first_norm = layer_norm(width, rngs, epsilon=epsilon) if first_norm else None
        options: dict[str, Any] = dict(bias=attention_bias, gated=gated, activation=activation, epsilon=epsilon)
        options |= dict(layer_scale=layer_scale, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(EncoderBlock(width, num_heads, hidden_features, **options) for _ in range(depth))
        self.norm = layer_norm(width, rngs, epsilon=epsilon)
        pool: dict[str, Any] = dict(activation=activation, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.attention_pool = AttentionPool(width, num_heads, hidden_features, **pool) if attention_pool else None

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The maps of x."""
        return self.encode(x)[1]

    def encode(self, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Tokens [B, T, width] of the last block, the class token and registers first, and the maps of `taps`."""
        hidden, grid = self.hidden(x)
        last = (self.normalised if self.normed == "tokens" else lambda y: y)(hidden[-1])
        maps = (self.patches(hidden[tap], grid) for tap in self.taps)
        return last.astype(x.dtype), tuple(y.astype(x.dtype) for y in maps)

    def hidden(self, x: jax.Array) -> tuple[list[jax.Array], Pair]:
        """The tokens before the first block and after each, without the last norm, and the grid of patches."""
        check_features("x", x, self.in_features)
        tokens, grid = self._embed(x)
        rotation = self.rotation(grid)
        outputs = [tokens]
        for block in self.blocks:
            outputs.append(block(outputs[-1], rotation))
        return outputs, grid

    def patches(self, tokens: jax.Array, grid: Pair, *, raw: bool = False) -> jax.Array:
        """The map [B, h, w, width] of the patches; `raw`: without the last norm where that is for all tokens."""
        y = tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
        y = y if raw or self.normed == "class" else self.normalised(y)
        return y.reshape(y.shape[0], *grid, y.shape[2])

    def normalised(self, tokens: jax.Array) -> jax.Array:
        """The last norm."""
        return normalise(self.norm, tokens, self.dtype)

    def pool(self, tokens: jax.Array) -> jax.Array:
        """The vector [B, width] of the image, from the tokens that `encode` returns."""
        if self.attention_pool is not None:
            return self.attention_pool(tokens).astype(tokens.dtype)
        if self.class_token is None:
            fail("pool", "an encoder with a class token or attention_pool", "one without")
        first = tokens[:, 0]
        return (self.normalised(first) if self.normed == "class" else first).astype(tokens.dtype)

    def rotation(self, grid: Pair) -> Rotation | None:
        """Sines and cosines [h w, half the width of a head] of the patches, in float32 or more."""
        if self.rotary_base is None:
            return None
        depth = self.embed.out_features // self.num_heads
        periods = rotary_periods(self.rotary_base, depth) if self.periods is None else self.periods[...]
        return rotary_angles(grid, periods, accum_dtype(self.dtype))

    def _embed(self, x: jax.Array) -> tuple[jax.Array, Pair]:
        """Tokens with their positions, and the grid of patches."""
        margins = [(0, -n % self.patch_size) for n in x.shape[1:3]]
        patches = self.embed(jnp.pad(x, ((0, 0), *margins, (0, 0))))
        batch, height, width, features = patches.shape
        first = [] if self.class_token is None else [self.class_token[...]]
        if self.positions is not None:
            table = self.positions[...]
            extra = table.shape[0] - self.grid**2
            first = [row + table[:extra] if extra else row for row in first]
            grid = table[extra:].reshape(1, self.grid, self.grid, features)
            patches = patches + resize_table(grid, (height, width), self.position_resize).astype(patches.dtype)
        first += [] if self.registers is None else [self.registers[...]]
        tokens = patches.reshape(batch, height * width, features)
        # Sharded as the others are.
        before = [jnp.zeros_like(tokens[:, : len(row)]) + row[None].astype(tokens.dtype) for row in first]
        tokens = jnp.concatenate([*before, tokens], axis=1)
        return (tokens if self.first_norm is None else normalise(self.first_norm, tokens, self.dtype)), (height, width)
