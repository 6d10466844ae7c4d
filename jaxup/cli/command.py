"""The command `jaxup` and its subcommand `upsample`: options, checks and messages."""

import argparse
import difflib
import math
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxup._heap import use_kept_heap
from jaxup._signals import Stopped, handled, stop
from jaxup.cli import estimate, features, matte
from jaxup.cli.common import FORCE, Parser, check_out, keep_compiled, progress, tile_size, warn
from jaxup.files import InputError, as_stored, output_dtype, read_depth, read_rgb, write_depth

METHODS = {
    "jbu": "joint bilateral upsampling",
    "bicubic": "cubic convolution; the image gives the size only",
    "guided-filter": "guided filter of the bicubic enlargement",
    "fgi": "fast guided global interpolation +",
    "fbs": "fast bilateral solver +",
    "mrf": "Markov random field +",
    "sdf": "static and dynamic filter +",
    "park": "least squares with a non-local term +",
    "tgv": "total generalised variation +",
    "fitted": "bilateral filter fitted to the image, never in tiles",
    "fdkn": "fast deformable kernel network *",
    "dkn": "deformable kernel network *",
    "djf": "deep joint filtering *",
    "djfr": "deep joint filtering with residual *",
    "dmsg": "deep multi-scale guidance, for the scale of its weights *",
    "attention": "attention-based network, for a scale of 2, 4, 8, ... *",
}
_EPILOG = "methods (* needs --weights, and sizes of a whole ratio; + solver, never in tiles):\n"
_EPILOG += "\n".join(f"  {name:<14} {line}" for name, line in METHODS.items())
_EPILOG += """

--confidence is a map of the size of the depth map: whole numbers up to 2, as phones write them, are the levels 0, 1/2
and 1; other 8- or 16-bit numbers are parts of 255 or 65535; fractions are 0 to 1. Pixels of confidence 0 and those
without depth do not count for a solver. Those without depth keep their value, or with --fill get the solver's: what
their neighbours have up to the next edge of the image; of tgv, the plane through them.

In a file of whole numbers, what a method overshoots them by at few pixels becomes the nearest that is depth, with a
warning; more is an error. .npy keeps all, and .tiff, where the depth map is no .tiff."""
_SKEW = 1.05  # between the ratios of both axes; from here on they are pointed out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 2 after bad input, 130 when interrupted or 143 when terminated.

    Errors are one line on stderr, and leave no output file; JAXUP_TRACEBACK=1 shows where they come from.
    """
    try:
        args = _parser().parse_args(arguments)
        with handled(stop, signal.SIGTERM):
            use_kept_heap()
            args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Stopped as stopped:
        print("terminated", file=sys.stderr)
        return stopped.status
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if os.environ.get("JAXUP_TRACEBACK", "0") not in ("", "0"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in message:
        return "not enough memory: try a smaller --tile"
    return message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser("jaxup", description="Depth maps, mattes and features of images.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="command", required=True)
    _add_upsample(commands)
    matte.add_parser(commands)
    estimate.add_parser(commands)
    features.add_parser(commands)
    return parser


def _add_upsample(commands: Any) -> None:
    command = commands.add_parser(
        "upsample",
        help="upsample a depth map under an RGB image",
        description="Upsample a depth map under an RGB image of the same view, to the size of the image.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command._negative_number_matcher = re.compile(r"-[\d.]|-inf")  # before Python 3.14, -1e10 was no value of an option
    add = command.add_argument
    add("depth", type=Path, help="depth map of one channel: .png (8 or 16 bits), .tiff, .pgm, .pfm, .npy or .exr")
    add("--guide", type=Path, required=True, metavar="IMAGE", help="PNG, JPEG, WebP, TIFF, BMP or PPM, 8 or 16 bits")
    add("-o", "--out", type=Path, required=True, metavar="FILE", help=".png, .tiff, .pgm, .pfm, .npy or .exr")
    add("--method", type=_method, default="jbu", metavar="NAME", help="see below; default: jbu")
    add("--weights", type=Path, metavar="FILE", help="official weights, or a file of jaxup.interop.save_module")
    add("--scale", type=float, help="only checked: the sizes of the files give it")
    add(
        "--invalid",
        type=float,
        default=0.0,
        metavar="VALUE",
        help="value of pixels without depth, beside NaN, infinities and numbers far beyond all others, which always "
        "are; default: 0; nan: no value",
    )
    add("--confidence", type=Path, metavar="FILE", help="of each pixel of the depth map, for solvers only: see below")
    add("--fill", action="store_true", help="write what the solver gives where there is no depth, too")
    add("--tile", type=tile_size, default=512, metavar="PIXELS", help="side of a tile; default: 512; 0: no tiles")
    cache = "keeps compiled programs here: the next call starts faster; solvers then show no progress"
    add("--cache", type=Path, metavar="FOLDER", help=cache)
    add("--force", action="store_true", help=FORCE)
    command.set_defaults(run=upsample)


def _method(name: str) -> str:
    if name in METHODS:
        return name
    near = difflib.get_close_matches(name.lower().replace("_", "-"), METHODS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "choose from " + ", ".join(METHODS)
    raise argparse.ArgumentTypeError(f"unknown method {name!r}, {hint}")


def upsample(args: argparse.Namespace) -> None:
    """Read, upsample and write; everything that can be checked is checked before the work begins."""
    inputs = [path for path in (args.depth, args.guide, args.weights, args.confidence) if path is not None]
    check_out(args.out, args.force, inputs)
    if args.cache is not None:
        keep_compiled(args.cache)
    depth, guide = read_depth(args.depth), read_rgb(args.guide)
    dtype = output_dtype(args.out, args.depth, depth.dtype)

    # These take a second or two to import.
    from jaxup.cli.depth import find_scale, read_confidence, upsample_depth
    from jaxup.cli.methods import check_scale, check_solver, make_method, ratio

    scale = find_scale(depth, guide)
    if args.scale is not None and not all(math.isclose(args.scale, s, rel_tol=1e-4) for s in scale):
        raise InputError(f"--scale {args.scale:g}: the image is {ratio(scale)} times as large as the depth map")
    check_scale(args.method, scale)
    check_solver(args.method, {"--confidence": args.confidence is not None, "--fill": args.fill})
    confidence = None if args.confidence is None else read_confidence(args.confidence, depth.shape)
    if max(scale) > _SKEW * min(scale):
        warn(f"the image is {ratio(scale)} times as large as the depth map: do they show the same view?")
    if dtype.kind in "ui" and depth.dtype.kind == "f":
        finite = np.isfinite(depth)
        if (depth != np.rint(depth))[finite].any():
            warn(f"{args.out}: depth is rounded to whole numbers; .tiff and .npy keep fractions")
        depth = np.where(finite, depth, args.invalid)  # integers have no NaN to write back
    method = make_method(args.method, args.weights)
    options: dict[str, Any] = dict(invalid=args.invalid, confidence=confidence, fill=args.fill, tile=args.tile)
    if dtype.kind in "ui":
        info = np.iinfo(dtype)
        options["limits"] = (info.min + (args.invalid == info.min), info.max - (args.invalid == info.max))
    with progress("upsampling", "step" if method.solver else "tile") as show:
        # A program that calls back while it runs cannot be kept.
        shown = None if method.solver and args.cache is not None else show
        result = upsample_depth(depth, guide, method, **options, show=shown, warn=warn)
    check_out(args.out, args.force, inputs)  # it may have come into being meanwhile
    write_depth(args.out, as_stored(result, dtype, args.out))
    print(f"{args.out}: {guide.shape[1]} x {guide.shape[0]}, {dtype}, {args.method} {ratio(scale)}x")
