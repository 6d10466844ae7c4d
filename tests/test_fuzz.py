"""Every loader of the library reads a damaged file or refuses it in one line; nothing ends or fills the process."""

import json
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from flax import nnx

import jaxup
from jaxup import files, interop
from jaxup.cli import depth_networks, matte_networks
from jaxup.cli.depth import read_confidence, upsample_depth
from jaxup.cli.methods import Method
from jaxup.models import DJF
from tests.fuzzing import fuzz, other_tensors
from tests.interop.test_caffe import LAYERS, LEGACY, caffemodel
from tests.interop.test_djf import filters_and_biases, layers, write_version_5, write_version_7_3
from tests.interop.test_load import HF, tensors_of

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


def folder(file):
    """One as Hugging Face has it, with weights in one file or two."""

    def make(path):
        from safetensors.numpy import save_file

        shapes, _ = tensors_of("CLIPVisionModel", HF)
        arrays = {key: np.zeros(x.shape, np.float32) for key, x in shapes.items()}
        parts = {"model.safetensors": arrays}
        if "index" in file:
            parts = {f"{i}.safetensors": {key: arrays[key] for key in list(arrays)[i::2]} for i in range(2)}
        for name, part in parts.items():
            save_file(part, path / name)
        index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
        described = {"model_type": "clip", "vision_config": HF | {"intermediate_size": 256, "hidden_act": "gelu"}}
        for name, text in (("config.json", described), ("model.safetensors.index.json", index)):
            (path / name).write_text(json.dumps(text))
        return path / file

    return make


def filled(read):
    """What `jaxup upsample --fill` makes of a map or its confidences, with a method that compiles nothing."""

    def nearest(target, guide, *, confidence, show, warn):
        sizes = zip(target.shape[1:3], guide.shape[1:3], strict=True)
        rows, columns = (np.arange(high) * low // high for low, high in sizes)
        return np.asarray(target)[:, rows][:, :, columns]

    def load(path):
        given, confidence = read(path)
        guide = np.zeros((2 * len(RGB), 2 * RGB.shape[1], 3), np.uint8)
        found = upsample_depth(given, guide, Method(nearest, None, solver=True), fill=True, confidence=confidence)
        assert np.isfinite(found).all()

    return load


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
    "filled depth": (depth("a.npy"), filled(lambda path: (files.read_depth(path), None))),
    "filled depth in pfm": (depth("a.pfm"), filled(lambda path: (files.read_depth(path), None))),
    "filled by confidence": (depth("a.png"), filled(lambda path: (GREY16, read_confidence(path, GREY16.shape)))),
    "description of a folder": (folder("config.json"), lambda path: jaxup.load(path.parent)),
    "weights of a folder": (folder("model.safetensors"), lambda path: jaxup.load(path.parent)),
    "index of a folder": (folder("model.safetensors.index.json"), lambda path: jaxup.load(path.parent)),
    "weights of features": (folder("model.safetensors"), jaxup.load),
}
# Readers of weights that find out what they are of: an official class, its arguments, and who reads it.
INDEXNET = {
    "width_mult": 0.35,
    "decoder": "indexnet",
    "output_stride": 32,
    "indexnet": "depthwise",
    "index_mode": "m2o",
}
INDEXNET |= {"use_nonlinear": True, "use_context": True, "conv_operator": "std_conv", "decoder_kernel_size": 5}
A2U = {"stride": 16, "decoder_conv_operator": "std_conv", "decoder_kernel_size": 3, "up_kernel_size": 5, "share": True}
A2U |= {"aspp": False, "encode_kernel_size": 6, "downupsample_group": 1}
NETWORKS = {
    "features": ("CLIPVisionModel", HF, jaxup.load),
    "depth": ("fastdepth.MobileNetSkipAdd", {}, depth_networks.load_network),
    "matte": ("hlvgg16", {"input_chn": 4}, matte_networks.load_network),
    "depth, resnet": ("fastdepth.ResNet", {"layers": 18, "decoder": "upproj"}, depth_networks.load_network),
    "depth, hu": ("hu.model", {"encoder": "resnet50"}, depth_networks.load_network),
    "matte, indexnet": ("hlmobilenetv2", INDEXNET, matte_networks.load_network),
    "matte, a2u": ("resnetmat", A2U, matte_networks.load_network),
}


SLOWER = {"weights of a folder", "index of a folder", "weights of features"}


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.thorough] * (x in SLOWER)) for x in LOADERS])
def test_damaged_files(name, tmp_path):
    fuzz(*LOADERS[name], tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_many_damaged_files(name, tmp_path):
    print(f"{name}: {fuzz(*LOADERS[name], tmp_path, MANY, seed=1)} of {MANY} read")


def with_others(name, folder, monkeypatch, count, seed):
    """How many of so many other sets of tensors a reader takes for those of its networks."""
    operator, config, load = NETWORKS[name]
    given, _ = tensors_of(operator, config)
    (folder / "a.pth").write_bytes(b"")
    read = -1
    for state in ({**given}, *other_tensors(given, count, seed)):
        for module in (interop, interop.checkpoint):
            monkeypatch.setattr(module, "load_checkpoint", lambda path, state=state: state)
        try:
            load(folder / "a.pth")
            read += 1
        except ValueError as error:
            assert read >= 0 and "\n" not in str(error), f"{error!r}"
    return read


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.first(1, 3)
def test_other_tensors(name, tmp_path, monkeypatch):
    with_others(name, tmp_path, monkeypatch, 5, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_many_damaged_networks(name, tmp_path, monkeypatch):
    """A hundredth of them, as these take long."""
    count = max(1, MANY // 100)
    print(f"{name}: {with_others(name, tmp_path, monkeypatch, count, seed=1)} of {count} read")


def test_shapes_that_no_network_has(tmp_path, monkeypatch):
    """A width of which a block would have no channels; more blocks than arrays; files that are elsewhere."""
    state = {"layer7.0.conv.7.weight": np.zeros((0, 1, 1, 1), np.float32), "pred.0.0.weight": np.zeros((1, 1, 1, 1))}
    state |= {"dconv_adapt4.0.weight": np.zeros((1, 1, 1, 1))}
    (tmp_path / "a.pth").write_bytes(b"")
    monkeypatch.setattr(interop, "load_checkpoint", lambda path: state)
    with pytest.raises(files.InputError, match=r"a\.pth: not the weights of hlmobilenetv2: "):
        matte_networks.load_network(tmp_path / "a.pth")
    monkeypatch.undo()
    for kind, value, message in (
        ("config.json", {"num_hidden_layers": 10**9}, "expected no more blocks than the 23 arrays, got 1000000000"),
        ("config.json", {"intermediate_size": "x"}, "expected a description of CLIPVisionModel, got TypeError"),
        ("model.safetensors.index.json", [], "index.json: expected an entry weight_map"),
        ("model.safetensors.index.json", {"a": "../a.pth"}, r"index.json: expected files beside it, got '\.\./a.pth'"),
        ("model.safetensors.index.json", {"a": ".."}, r"index.json: expected files beside it, got '\.\.'"),
        ("model.safetensors.index.json", {"a": "x" * 300 + "\0"}, "index.json: expected files beside it, got 'xxx"),
    ):
        (tmp_path / kind).mkdir()
        path = folder(kind)(tmp_path / kind)
        described = (
            {"model_type": "clip", "vision_config": HF | value} if kind == "config.json" else {"weight_map": value}
        )
        path.write_text(json.dumps(described))
        with pytest.raises(ValueError, match=message) as raised:
            jaxup.load(path.parent)
        assert "\n" not in str(raised.value)
        shutil.rmtree(path.parent)
