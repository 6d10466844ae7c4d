"""The subcommand `features`: options, checks and files."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxup._writing import replacing
from jaxup.cli.common import FORCE, check_path, progress, warn
from jaxup.files import InputError, read_rgb8, write_rgb

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm"}
_LONGEST = 1024
_STORED = {"float32": np.float32, "float16": np.float16}


def add_parser(commands: Any) -> None:
    """The options."""
    command = commands.add_parser(
        "features",
        help="features of photographs, at full resolution",
        description="Features of a photograph, or of all in a folder, by a vision encoder; enlarged to the photograph's"
        " size by --upsampler.",
        epilog="A folder's features go to files of the photographs' names in the folder OUT; what is there already is "
        "not made again, so that a run which was stopped goes on where it was.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("image", type=Path, help="a photograph or a folder of them: PNG, JPEG, WebP, TIFF, BMP or PPM")
    add("--encoder", required=True, metavar="NAME", help="dinov2_s14, dinov3_s16, ..., or a file, folder or hf://...")
    add("--weights", metavar="FILE", help="of the encoder: a file, a folder of Hugging Face's form, or hf://owner/repo")
    add("--layer", type=int, metavar="N", help="after how many blocks; default: all")
    add(
        "--upsampler", metavar="NAME", help="anyup, uplift, naf, jafar, loftup; fitted, bilinear, which have no weights"
    )
    add("--upsampler-weights", metavar="FILE", help="of the upsampler, as --weights")
    add("-o", "--out", type=Path, metavar="OUT", help="features.npz, or .npy; of a folder: a folder, made if need be")
    add("--pca", type=Path, metavar="FILE", help="picture of the features as colours, .png; of a folder: a folder")
    add(
        "--similar",
        type=int,
        nargs=2,
        metavar=("X", "Y"),
        help="the picture of --pca shows how similar features are to those at this pixel",
    )
    add(
        "--longest",
        type=int,
        default=_LONGEST,
        metavar="PIXELS",
        help=f"larger photographs are reduced so that their longer side has these; default: {_LONGEST}; 0: none are",
    )
    add("--store", choices=_STORED, default="float32", help="type of the numbers in OUT")
    add("--force", action="store_true", help=FORCE)
    command.set_defaults(run=features)


def features(args: argparse.Namespace) -> None:
    """Read, compute and write; everything that can be checked is checked before the work begins."""
    if args.out is None and args.pca is None:
        raise InputError("give -o FILE, --pca FILE or both: there is nothing to write")
    if args.similar is not None and args.pca is None:
        raise InputError("--similar: needs --pca FILE, where its picture goes")
    if args.longest < 0:
        raise InputError(f"--longest {args.longest}: expected a number of pixels, or 0")
    if args.upsampler is None and args.upsampler_weights is not None:
        raise InputError("--upsampler-weights: needs --upsampler NAME")
    work = _of_folder(args) if args.image.is_dir() else [_of_file(args)]

    from jaxup.cli.feature_networks import make_features  # takes a second or two to import

    failed = 0
    run = make_features(
        args.encoder, args.weights, args.layer, args.upsampler, args.upsampler_weights, longest=args.longest
    )
    with progress("features", "tile") as show:
        for done, (image, out, picture) in enumerate(work):
            try:
                _one(run, args, image, out, picture)
            except InputError as error:
                if not args.image.is_dir():
                    raise
                failed += 1
                warn(str(error))
            show(done + 1, len(work))
    if failed:
        raise InputError(f"{failed} of {len(work)} photographs were left out")


Work = tuple[Path, Path | None, Path | None]


def _of_file(args: argparse.Namespace) -> Work:
    for out, endings in ((args.out, (".npz", ".npy")), (args.pca, (".png",))):
        if out is None:
            continue
        if out.suffix.lower() not in endings:
            raise InputError(f"{out}: expected a name that ends in {' or '.join(endings)}")
        check_path(out, args.force, [args.image, *_local(args.weights, args.upsampler_weights)])
    return args.image, args.out, args.pca


def _local(*paths: str | None) -> list[Path]:
    return [Path(path) for path in paths if path is not None and not path.startswith("hf://")]


def _of_folder(args: argparse.Namespace) -> list[Work]:
    """The photographs of a folder whose files are not all there yet."""
    photographs = sorted(path for path in args.image.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not photographs:
        raise InputError(f"{args.image}: no photographs in this folder")
    names = [path.name for path in photographs]
    for folder in (args.out, args.pca):
        if folder is not None:
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder}: expected a folder, as {args.image} is one")
            if folder.resolve() == args.image.resolve():
                raise InputError(f"{folder}: is also the folder of the photographs")
            folder.mkdir(parents=True, exist_ok=True)
    work: list[Work] = []
    for path, name in zip(photographs, names, strict=True):
        out, picture = args.out and args.out / f"{name}.npz", args.pca and args.pca / f"{name}.png"
        wanted = [file for file in (out, picture) if file is not None]
        if args.force or not all(file.exists() for file in wanted):
            work.append((path, out, picture))
    if len(work) < len(photographs):
        print(f"{len(photographs) - len(work)} of {len(photographs)} photographs are done already")
    return work


def _one(
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    args: argparse.Namespace,
    image: Path,
    out: Path | None,
    picture: Path | None,
) -> None:
    pixels = read_rgb8(image)
    height, width = pixels.shape[:2]
    if args.similar is not None and not (0 <= args.similar[0] < width and 0 <= args.similar[1] < height):
        raise InputError(f"--similar {args.similar[0]} {args.similar[1]}: outside of {image}, {width} x {height}")
    coarse, fine = run(pixels)
    if not all(np.isfinite(row).all() for row in fine):  # row by row, here and below: features may fill memory
        raise InputError(f"{image}: the networks gave NaN or infinity")
    if picture is not None:
        write_rgb(picture, _picture(args, coarse, fine, (height, width)))
    if out is not None:
        _write(out, fine.astype(_STORED[args.store], copy=False), (height, width))
    rows, columns, channels = fine.shape
    print(f"{out or picture}: {columns} x {rows} x {channels} of {width} x {height} pixels")


def _picture(args: argparse.Namespace, coarse: np.ndarray, fine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from jaxup.cli.feature_pictures import colours, similarity

    if args.similar is None:
        return colours(fine, coarse)
    (x, y), (height, width) = args.similar, size
    return similarity(fine, y * fine.shape[0] // height, x * fine.shape[1] // width)


def _write(path: Path, found: np.ndarray, size: tuple[int, int]) -> None:
    try:
        with replacing(path) as file:
            if path.suffix.lower() == ".npy":
                np.save(file, found)
            else:
                np.savez(file, features=found, image_size=np.array(size))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
