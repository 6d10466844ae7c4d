"""The sets that matting papers train and test on, each in the folders that it is unpacked to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.data import images
from experiments.data.matting import Composed, Examined, Foreground, LayerSource, Matted, Source, check_size, read_matte
from experiments.data.photos import image_files
from jaxup import matting
from jaxup.files import InputError

_ADOBE = ("", "Combined_Dataset", "Adobe_Deep_Matting_Dataset/Combined_Dataset")
_BACKGROUNDS = {  # COCO 2014 and PASCAL VOC 2012, whose names the lists of backgrounds have
    "Training": ("bg/train", "train2014", "COCO/train2014", "coco/train2014", "bg"),
    "Test": ("bg/test", "VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2008/JPEGImages", "VOC2012/JPEGImages", "bg"),
}
_PER_FOREGROUND = 100  # backgrounds of each foreground of a folder

Trimaps = Literal["Trimap1", "Trimap2"]


class Triple(NamedTuple):
    """The files of one image."""

    name: str
    image: Path
    trimap: Path
    alpha: Path


class Triples:
    """Images with trimaps and mattes from files, which are decoded when they are asked for.

    Raises:
        InputError: there are none; when one is read, a file that is missing or cannot be read, or different sizes.
    """

    def __init__(self, files: Sequence[Triple]):
        if not files:
            raise InputError("images: expected at least one with its trimap and alpha")
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Matted:
        name, image, trimap, alpha = self.files[index]
        picture, known, matte = images.read_rgb(image), read_matte(trimap), read_matte(alpha)
        check_size(trimap, "a trimap", known, "an image", picture)
        check_size(alpha, "an alpha", matte, "an image", picture)
        return Matted(picture, matting.clean_trimap(known), matte, name)


def adobe_training(root: Path) -> LayerSource:
    """Adobe Image Matting: 431 foregrounds over 100 images of COCO 2014 each, by the official lists.

    Training_set in Combined_Dataset, with training_fg_names.txt, training_bg_names.txt, and fg and alpha in folders as
    "Adobe-licensed images" and "Other"; backgrounds in train2014, COCO/train2014 or bg.

    Reference:
        Xu et al., Deep Image Matting, CVPR 2017.
    """
    return _adobe(root, "Training")


def adobe_test(root: Path) -> Source:
    """Composition-1k: 50 foregrounds over 20 images of PASCAL VOC each, by the official lists, and their trimaps.

    Test_set in Combined_Dataset, with test_fg_names.txt, test_bg_names.txt, and fg, alpha and trimaps (NAME_0.png to
    NAME_19.png) in "Adobe-licensed images"; backgrounds in VOCdevkit/VOC2012/JPEGImages or bg.

    Reference:
        Xu et al., Deep Image Matting, CVPR 2017.
    """
    layers = _adobe(root, "Test")
    trimaps = [
        alpha.parents[1] / "trimaps" / f"{name}_{turn}.png"
        for name, _, alpha in layers.foregrounds
        for turn in range(layers.per_foreground)
    ]
    return Examined(layers, trimaps, reduce=False)


def _adobe(root: Path, part: str) -> Composed:
    base = next((root / name / f"{part}_set" for name in _ADOBE if (root / name / f"{part}_set").is_dir()), None)
    if base is None:
        raise InputError(f"{root}: has no {part}_set, nor Combined_Dataset/{part}_set")
    foregrounds, backgrounds = (_lines(base / f"{part.lower()}_{kind}_names.txt") for kind in ("fg", "bg"))
    if len(backgrounds) % len(foregrounds):
        raise InputError(
            f"{base}/{part.lower()}_bg_names.txt: expected as many backgrounds for each of {len(foregrounds)} "
            f"foregrounds, got {len(backgrounds)}"
        )
    folders = sorted(folder for folder in base.iterdir() if (folder / "fg").is_dir())
    files = [_foreground(base, folders, name) for name in foregrounds]
    where = next((root / name for name in _BACKGROUNDS[part] if (root / name / backgrounds[0]).is_file()), None)
    if where is None:
        raise InputError(f"{root}: {backgrounds[0]} is in none of {', '.join(_BACKGROUNDS[part])}")
    return Composed(files, [where / name for name in backgrounds], len(backgrounds) // len(foregrounds), listed=True)


def _lines(path: Path) -> list[str]:
    """Names, which may have spaces, one a line."""
    with images.reading(path):
        names = [name for line in path.read_text().splitlines() if (name := line.strip())]
        for name in names:
            images.listed_file(path, path.parent, name)
    if not names:
        raise InputError(f"{path}: lists no images")
    return names


def _foreground(base: Path, folders: Sequence[Path], name: str) -> Foreground:
    for folder in folders:
        if (folder / "fg" / name).is_file():
            colours = folder / "fg" / name
            return Foreground(colours.stem, colours, _partner(colours, folder / "alpha"))
    raise InputError(f"{base}: no {name} in a folder fg, which the list of foregrounds has")


def _partner(image: Path, folder: Path, stem: str | None = None) -> Path:
    """The file of a folder with the name of an image, whatever its ending."""
    for suffix in (image.suffix, *images.SUFFIXES):
        if (folder / f"{stem or image.stem}{suffix}").is_file():
            return folder / f"{stem or image.stem}{suffix}"
    raise InputError(f"{image}: has no partner {stem or image.stem} in {folder}")


def alphamatting(root: Path, trimaps: Trimaps = "Trimap1") -> Source:
    """The 27 images of alphamatting.com whose mattes are public, in low resolution.

    input_training_lowres, gt_training_lowres, and trimap_training_lowres/Trimap1 or Trimap2; or a folder, or its
    subfolder alphamatting or matting/alphamatting, of <id>_image, <id>_trimap and <id>_alpha.

    Reference:
        Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009.
    """
    if (root / "input_training_lowres").is_dir():
        files = image_files(root / "input_training_lowres")
        maps = root / "trimap_training_lowres" / trimaps
        truth = root / "gt_training_lowres"
        return Triples([Triple(file.stem, file, _partner(file, maps), _partner(file, truth)) for file in files])
    for folder in (root, root / "alphamatting", root / "matting" / "alphamatting"):
        if folder.is_dir() and any(file.stem.endswith("_image") for file in folder.iterdir()):
            return Triples(_named(folder))
    raise InputError(f"{root}: has neither input_training_lowres nor images <id>_image.*")


def _named(folder: Path) -> list[Triple]:
    """<id>_image.*, <id>_trimap.* and <id>_alpha.* of one folder."""
    found = [(file, file.stem.removesuffix("_image")) for file in image_files(folder) if file.stem.endswith("_image")]
    return [
        Triple(name, file, *(_partner(file, folder, f"{name}_{kind}") for kind in ("trimap", "alpha")))
        for file, name in found
    ]


def folder_training(root: Path) -> LayerSource:
    """Any foregrounds over any backgrounds: fg, alpha and bg, in `root` or in its folder train; 100 for each."""
    return _folder(root, "train")


def folder_test(root: Path) -> Source:
    """Any images with trimaps and alphas: image, trimap and alpha in the folder test, or fg, alpha and bg in it."""
    test = root / "test" if (root / "test").is_dir() else root
    if (test / "image").is_dir():
        files = image_files(test / "image")
        partners = [[_partner(file, test / kind) for kind in ("trimap", "alpha")] for file in files]
        return Triples([Triple(file.stem, file, *pair) for file, pair in zip(files, partners, strict=True)])
    return Examined(_folder(root, "test", per_foreground=1))


def _folder(root: Path, part: str, per_foreground: int = _PER_FOREGROUND) -> Composed:
    base = root / part if (root / part).is_dir() else root
    backgrounds = base / "bg" if (base / "bg").is_dir() else root / "bg"
    colours = image_files(base / "fg")
    files = [Foreground(file.stem, file, _partner(file, base / "alpha")) for file in colours]
    return Composed(files, image_files(backgrounds), per_foreground)


TRAINING: Mapping[str, Callable[[Path], LayerSource]] = {"adobe": adobe_training, "folder": folder_training}
"""Sources of layers by name; each takes the data directory, or the folder of the set itself."""

TESTS: Mapping[str, Callable[[Path], Source]] = {
    "adobe": adobe_test,
    "alphamatting": alphamatting,
    "folder": folder_test,
}
"""Sources of images to test on by name."""
