"""The subcommand `matte`: options, checks and files."""

import argparse
import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxup.cli.common import FORCE, check_out, check_path, progress, tile_size, warn
from jaxup.files import InputError, as_stored, depth_format, read_rgb8, read_trimap, require, write_depth, write_rgb

# Methods without weights, their functions in pymatting, and the least side of an image that these can solve.
SOLVERS = {
    "closed-form": ("estimate_alpha_cf", 3),
    "knn": ("estimate_alpha_knn", 5),
    "large-kernel": ("estimate_alpha_lkm", 41),
    "learning-based": ("estimate_alpha_lbdm", 3),
    "random-walk": ("estimate_alpha_rw", 3),
}
Matte = Callable[..., np.ndarray]  # (image, trimap, tile=, show=) -> alpha, 0 .. 255


def add_parser(commands: Any) -> None:
    """The options."""
    command = commands.add_parser(
        "matte",
        help="find the alpha matte of a photograph under a trimap",
        description="Find the alpha matte of a photograph under a trimap, by a network or by PyMatting.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("image", type=Path, help="the photograph: PNG, JPEG, WebP, TIFF, BMP or PPM, 8 or 16 bits")
    add(
        "--trimap",
        type=Path,
        required=True,
        metavar="IMAGE",
        help="of its size: 0 background, 255 foreground, else unknown",
    )
    add(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="alpha: .png, .pgm; .tiff, .npy, .pfm, .exr: 0 .. 1",
    )
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="of IndexNet matting or A2U, or a file of jaxup.interop.save_module",
    )
    add("--method", choices=SOLVERS, help="without --weights; default: closed-form")
    add("--foreground", type=Path, metavar="FILE", help="write the foreground's colours, too: .png (needs PyMatting)")
    add(
        "--tile",
        type=tile_size,
        default=2048,
        metavar="PIXELS",
        help="side of what a network sees at once; default: 2048; 0: all",
    )
    add("--force", action="store_true", help=FORCE)
    command.set_defaults(run=matte)


def matte(args: argparse.Namespace) -> None:
    """Read, solve and write; everything that can be checked is checked before the work begins."""
    _check_outputs(args)
    image, trimap = read_rgb8(args.image), read_trimap(args.trimap)
    if image.shape[:2] != trimap.shape:
        sizes = (f"{x.shape[1]} x {x.shape[0]}" for x in (trimap, image))
        raise InputError("{}: {} pixels, the photograph has {} as it is displayed".format(args.trimap, *sizes))
    colours = require("pymatting").estimate_foreground_ml if args.foreground is not None else None
    if (trimap == 128).any():
        name, solve = _method(args)
        with progress("matting") as show:
            alpha = solve(image, trimap, tile=args.tile, show=show)
    else:
        warn(f"{args.trimap}: no unknown pixels: the matte is the trimap")
        name, alpha = "the trimap", trimap.astype(np.float32)
    if not np.isfinite(alpha).all():
        raise InputError("the method gave NaN or infinity")
    foreground = None if colours is None else _foreground(image, alpha, colours)
    _check_outputs(args)  # they may have come into being meanwhile
    write_depth(args.out, _stored(args.out, alpha))
    if foreground is not None:
        write_rgb(args.foreground, foreground)
    print(f"{args.out}: {image.shape[1]} x {image.shape[0]}, {name}")


def _check_outputs(args: argparse.Namespace) -> None:
    inputs = [path for path in (args.image, args.trimap, args.weights) if path is not None]
    check_out(args.out, args.force, inputs)
    if args.foreground is None:
        return
    if args.foreground.suffix.lower() != ".png":
        raise InputError(f"{args.foreground}: expected a name that ends in .png")
    if args.foreground.resolve() == args.out.resolve():
        raise InputError(f"{args.foreground}: is also the name of the matte")
    check_path(args.foreground, args.force, inputs)


def _method(args: argparse.Namespace) -> tuple[str, Matte]:
    if args.weights is None:
        name = args.method or "closed-form"
        function, least = SOLVERS[name]
        estimate = getattr(require("pymatting"), function)
        return name, lambda image, trimap, **_: _solve(estimate, image, trimap, least)
    if args.method is not None:
        raise InputError(f"--method {args.method} takes no weights: leave out one of the two")

    from jaxup.cli.matte_networks import load_network  # takes a second or two to import

    return load_network(args.weights)


def _solve(
    estimate: Callable[[np.ndarray, np.ndarray], np.ndarray], image: np.ndarray, trimap: np.ndarray, least: int
) -> np.ndarray:
    for value, what in ((0, "background"), (255, "foreground")):
        if not (trimap == value).any():
            raise InputError(f"the trimap has no known {what}: this needs both, or --weights of a network")
    height, width = trimap.shape
    beyond = [(0, max(0, least - n)) for n in (height, width)]  # mirrored
    with _pymatting():
        alpha = estimate(np.pad(image, [*beyond, (0, 0)], "symmetric") / 255, np.pad(trimap, beyond, "symmetric") / 255)
    return np.where(trimap == 128, 255 * alpha[:height, :width].clip(0, 1), trimap).astype(np.float32)


@contextlib.contextmanager
def _pymatting() -> Iterator[None]:
    """Without what it prints and warns of, which is on stdout; whatever it raises is one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(f"PyMatting cannot solve this photograph: {str(error) or type(error).__name__}") from error


def _foreground(image: np.ndarray, alpha: np.ndarray, colours: Callable[..., np.ndarray]) -> np.ndarray:
    with _pymatting():
        found = colours(image / 255, alpha.astype(np.float64) / 255)
    eight_bits: np.ndarray = np.rint(255 * np.clip(found, 0, 1)).astype(np.uint8)
    return eight_bits


def _stored(path: Path, alpha: np.ndarray) -> np.ndarray:
    """8 bits, truncated as the official codes store it, or fractions."""
    if depth_format(path) in ("PNG", "PGM"):
        return alpha.astype(np.uint8)
    return as_stored(alpha / np.float32(255), np.dtype(np.float32), path)
