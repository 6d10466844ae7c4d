"""The subcommand `depth`: options, checks and files."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from jaxup.cli.common import FORCE, check_out
from jaxup.files import InputError, as_stored, depth_format, read_rgb8, write_depth

_LONGEST = 8  # sides of a photograph, by the shorter one


def add_parser(commands: Any) -> None:
    """The options."""
    command = commands.add_parser(
        "depth",
        help="estimate the depth of a photograph",
        description="Estimate the depth map of a photograph by FastDepth or Hu et al.'s network.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("image", type=Path, help="PNG, JPEG, WebP, TIFF, BMP or PPM, 8 or 16 bits")
    add("--weights", type=Path, required=True, metavar="FILE", help="official weights, or of jaxup.interop.save_module")
    add(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".png, .pgm: millimetres; .npy, .pfm, .tiff, .exr: metres",
    )
    add("--force", action="store_true", help=FORCE)
    command.set_defaults(run=estimate)


def estimate(args: argparse.Namespace) -> None:
    """Read, estimate and write; everything that can be checked is checked before the work begins."""
    inputs = args.image, args.weights
    check_out(args.out, args.force, inputs)
    image = read_rgb8(args.image)
    short, long = sorted(image.shape[:2])
    if long > _LONGEST * short:
        raise InputError(
            f"{args.image}: {image.shape[1]} x {image.shape[0]}, a side is more than {_LONGEST} times the other"
        )

    from jaxup.cli.depth_networks import load_network  # takes a second or two to import

    name, run = load_network(args.weights)
    depth = run(image)
    if not np.isfinite(depth).all():
        raise InputError("the network gave NaN or infinity")
    check_out(args.out, args.force, inputs)  # it may have come into being meanwhile
    whole = depth_format(args.out) in ("PNG", "PGM")
    values = 1000 * depth.clip(0) if whole else depth  # no depth, 0, in the place of what is behind the camera
    write_depth(args.out, as_stored(values, np.dtype(np.uint16 if whole else np.float32), args.out))
    print(f"{args.out}: {image.shape[1]} x {image.shape[0]}, {name}, {depth.min():.3g} to {depth.max():.3g} m")
