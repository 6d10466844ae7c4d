"""A bank of periodic grey textures for the generated scenes, and the colours they are printed in."""

import functools

import numpy as np

SIZE = 256  # side of a texture in texels; a power of two, so that wrapping around is a bit mask
_PER_KIND = 6
ROUGH = range(2 * _PER_KIND, 4 * _PER_KIND)  # the textures of irregular shape


def _unit(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / (x.max() - x.min())


def _noise(rng: np.random.Generator, exponent: float, stretch: float = 1.0) -> np.ndarray:
    """Periodic noise with amplitude spectrum f**-exponent, drawn out along columns by `stretch`."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    frequency = np.hypot(fy / stretch, fx * stretch)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * frequency**-exponent
    field = np.fft.irfft2(spectrum, (SIZE, SIZE))
    return 0.5 + np.clip(field / (4 * field.std()), -0.5, 0.5)


def _waves(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two phases that run over the texture a whole number of times, so that it stays periodic."""
    t = np.arange(SIZE) / SIZE
    return np.meshgrid(rng.choice([6, 9, 14, 20]) * t, rng.choice([4, 9, 14, 20]) * t, indexing="ij")


def _stripes(rng: np.random.Generator) -> np.ndarray:
    phase = _waves(rng)[0]
    return (phase % 1 < rng.uniform(0.15, 0.6)) * 0.8 + 0.2 * _noise(rng, 1.2)


def _checks(rng: np.random.Generator) -> np.ndarray:
    a, b = _waves(rng)
    return ((a % 1 < 0.5) ^ (b % 1 < 0.5)) * 0.8 + 0.2 * _noise(rng, 1.2)


def _tiles(rng: np.random.Generator) -> np.ndarray:
    """Bricks with joints; every other row is displaced by half a brick."""
    a, b = _waves(rng)
    b = b + 0.5 * (np.floor(a) % 2)
    joint = (a % 1 < 0.12) | (b % 1 < 0.08)
    tone = rng.random((64, 64))[np.floor(a).astype(int) % 64, np.floor(b % b[0, -1]).astype(int) % 64]
    return np.where(joint, 0.0, 0.5 + 0.35 * tone + 0.15 * _noise(rng, 0.8))


def _dots(rng: np.random.Generator) -> np.ndarray:
    a, b = _waves(rng)
    return (np.hypot(a % 1 - 0.5, b % 1 - 0.5) < rng.uniform(0.2, 0.4)) * 0.9 + 0.1 * _noise(rng, 1.0)


def _wood(rng: np.random.Generator) -> np.ndarray:
    phase = _waves(rng)[0] + 2.5 * _noise(rng, 2.0)
    return 0.35 * np.sin(2 * np.pi * phase) + 0.5 + 0.15 * _noise(rng, 0.7, stretch=3.0)


def _print(rng: np.random.Generator) -> np.ndarray:
    """Dark marks on light paper, in lines, like text seen from afar."""
    phase = _waves(rng)[0]
    ink = (_noise(rng, 0.4, stretch=0.7) > 0.5) & (phase % 1 < 0.6)
    return 1.0 - 0.9 * ink


def _rough(rng: np.random.Generator) -> np.ndarray:
    return _unit(_noise(rng, rng.uniform(0.6, 1.8), stretch=rng.choice([1.0, 1.0, 2.0])))


def _plain(rng: np.random.Generator) -> np.ndarray:
    return 0.5 + 0.3 * (_noise(rng, rng.uniform(0.6, 1.6)) - 0.5)


@functools.lru_cache(maxsize=1)
def bank() -> np.ndarray:
    """All textures, float32 [T, SIZE, SIZE] in [0, 1], periodic both ways; the same in every process."""
    rng = np.random.default_rng(2021)
    kinds = (_plain, _plain, _rough, _rough, _wood, _stripes, _checks, _tiles, _dots, _print)
    return np.stack([kind(rng) for kind in kinds for _ in range(_PER_KIND)]).clip(0, 1).astype(np.float32)


def look_up(texture: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Read a texture at texel coordinates of any value, wrapping around."""
    mask = SIZE - 1
    return bank()[texture].take((v.astype(np.int32) & mask) * SIZE + (u.astype(np.int32) & mask))


def palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw `count` colours for one scene, float32 [count, 3]: dark to bright, mostly muted, leaning
    towards one hue."""
    value = rng.permutation(np.linspace(0.08, 1.0, count))[:, None]
    saturation = rng.beta(1.2, 2.2, (count, 1))
    hue = rng.uniform(0, 1) + rng.normal(0, 0.3, (count, 1))
    pure = 0.5 + 0.5 * np.cos(2 * np.pi * (hue + np.array([0.0, 1 / 3, 2 / 3])))
    return (value * (1 - saturation * (1 - pure))).astype(np.float32)
