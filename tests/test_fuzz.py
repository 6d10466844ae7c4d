"""Every loader of the library reads a damaged file or refuses it in one line; nothing ends or fills the process."""

import os
import struct
import zlib

import numpy as np
import pytest
from flax import nnx

from jaxup import files, interop
from jaxup.cli.depth import read_confidence
from jaxup.models import DJF
from tests.fuzzing import fuzz
from tests.interop.test_caffe import LAYERS, LEGACY, caffemodel
from tests.interop.test_djf import filters_and_biases, layers, write_version_5, write_version_7_3

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

FEW, MANY = 40, int(os.environ.get("JAXUP_DAMAGED", "10000"))
RGB = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
GREY16 = RGB[..., 0].astype(np.uint16) * 257


def pillow(name, mode="RGB"):
    def make(folder):
        Image.fromarray(RGB).convert(mode).save(folder / name)
        return folder / name

    return make


def palette(folder):
    Image.fromarray(RGB[..., 0] // 128 * 255).convert("P").save(folder / "a.png")
    return folder / "a.png"


def with_exif(folder):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[274], exif[270] = 6, "turned"  # which way is up, and a description
    image.save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"


def exr(folder):
    pytest.importorskip("OpenEXR", reason="OpenEXR is not installed")
    return depth("a.exr")(folder)


def tiff(pixels, **options):
    def make(folder):
        tifffile.imwrite(folder / "a.tif", pixels, **options)
        return folder / "a.tif"

    return make


def depth(name):
    def make(folder):
        files.write_depth(folder / name, GREY16.astype(np.float32) if name != "a.png" else GREY16)
        return folder / name

    return make


def png16(folder):
    (folder / "a.png").write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) * 257))
    return folder / "a.png"


def text_pgm(folder):
    (folder / "a.pgm").write_text("P2 # text\n4 3\n255\n" + " ".join(map(str, range(12))))
    return folder / "a.pgm"


def torch_file(**options):
    def make(folder):
        torch = pytest.importorskip("torch")
        state = {"conv.weight": torch.ones(4, 3, 1, 1), "half": torch.ones(4).half(), "array": np.ones(3)}
        torch.save({"state_dict": state, "best": np.float64(3), "epoch": 3}, folder / "a.pth", **options)
        return folder / "a.pth"

    return make


def tensors(folder):
    from safetensors.numpy import save_file

    save_file({"a": np.ones((3, 4), np.float32), "b": np.ones(3, np.float16)}, folder / "a.safetensors")
    return folder / "a.safetensors"


def module(folder):
    path = folder / "a.safetensors"
    made = DJF(widths=(3, 2), joint_widths=(2, 2), rngs=nnx.Rngs(0))
    interop.save_module(path, made, {"widths": (3, 2), "joint_widths": (2, 2)})
    return path


def matlab(write):
    def make(folder):
        write(folder / "net.mat", list(layers({k: x[:3, :3] for k, x in filters_and_biases().items()})))
        return folder / "net.mat"

    return make


def packed_matlab(folder):
    path = matlab(write_version_5)(folder)
    whole = path.read_bytes()
    stored = zlib.compress(whole[128:])
    path.write_bytes(whole[:128] + struct.pack("<II", 15, len(stored)) + stored)
    return path


def caffe(**options):
    def make(folder):
        (folder / "net.caffemodel").write_bytes(caffemodel(LAYERS, **options))
        return folder / "net.caffemodel"

    return make


LOADERS = {
    "png": (pillow("a.png"), files.read_rgb),
    "png of a palette": (pillow("a.png", "P"), files.read_rgb),
    "png of 16 bits a channel": (png16, files.read_rgb),
    "depth in png": (depth("a.png"), files.read_depth),
    "jpeg": (pillow("a.jpg"), files.read_rgb),
    "jpeg with exif": (with_exif, files.read_rgb8),
    "webp": (pillow("a.webp"), files.read_rgb),
    "bmp": (pillow("a.bmp"), files.read_rgb),
    "ppm": (pillow("a.ppm"), files.read_rgb),
    "pgm": (pillow("a.pgm", "L"), files.read_trimap),
    "trimap of a palette": (palette, files.read_trimap),
    "confidence": (depth("a.png"), lambda path: read_confidence(path, GREY16.shape)),
    "exr": (exr, files.read_depth),
    "pgm of text": (text_pgm, files.read_depth),
    "pfm": (depth("a.pfm"), files.read_depth),
    "npy": (depth("a.npy"), files.read_depth),
    "tiff": (tiff(GREY16, photometric="minisblack"), files.read_depth),
    "tiff of tiles": (tiff(RGB, photometric="rgb", compression="zlib", tile=(16, 16)), files.read_rgb),
    "tiff, lzw": (tiff(GREY16, photometric="minisblack", compression="lzw", predictor=True), files.read_depth),
    "tiff of jpeg": (tiff(RGB, photometric="ycbcr", compression="jpeg"), files.read_rgb),
    "torch": (torch_file(), interop.load_checkpoint),
    "old torch": (torch_file(_use_new_zipfile_serialization=False), interop.load_checkpoint),
    "safetensors": (tensors, interop.load_checkpoint),
    "module": (module, interop.load_module),
    "matconvnet": (matlab(write_version_5), interop.load_matconvnet),
    "packed matconvnet": (packed_matlab, interop.load_matconvnet),
    "caffe": (caffe(), interop.load_caffemodel),
    "old caffe": (caffe(fields=LEGACY, old=True, packed=False), interop.load_caffemodel),
    "matconvnet 7.3": (matlab(write_version_7_3), interop.load_matconvnet),
}


@pytest.mark.parametrize("name", LOADERS)
def test_damaged_files(name, tmp_path):
    fuzz(*LOADERS[name], tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_many_damaged_files(name, tmp_path):
    print(f"{name}: {fuzz(*LOADERS[name], tmp_path, MANY, seed=1)} of {MANY} read")
