"""Images and depth maps in files: the numbers that are stored, whatever an image library's modes make of them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from jaxup import files
from jaxup.files import InputError, read_depth, read_rgb, white_level, write_depth

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
pytest.importorskip("imagecodecs", reason="imagecodecs is not installed")

RANDOM = np.random.default_rng(0)
DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def png(rows, width, bits, colour):
    """A file of rows of bytes; each begins with the number of its filter, 4 for Paeth's."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def extremes(dtype):
    """Numbers of a type that other types cannot hold."""
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    return np.array([[limits.min, 0, 1], [2, limits.max, limits.max // 3]], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True, "byteorder": ">"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"tile": (16, 16), "compression": "zlib"},
        {"photometric": "miniswhite"},
    ],
    ids=str,
)
def test_tiff_of_every_type(dtype, options):
    depth = extremes(dtype)
    if dtype in ("u8", "i8"):
        options = {key: value for key, value in options.items() if key != "predictor"}  # tifffile writes none of them
    tifffile.imwrite("depth.tif", depth, **{"photometric": "minisblack"} | options)
    stored = read_depth(Path("depth.tif"))
    assert stored.dtype == np.dtype(dtype) and stored.dtype.isnative
    np.testing.assert_array_equal(stored, depth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_written_is_read(dtype):
    names = {"u1": ["a.png", "a.pgm"], "u2": ["a.png", "a.pgm"], "f4": ["a.pfm"]}.get(dtype, [])
    for name in ["a.tiff", "a.npy", *names]:
        write_depth(Path(name), extremes(dtype))
        stored = read_depth(Path(name))
        assert stored.dtype == np.dtype(dtype), name
        np.testing.assert_array_equal(stored, extremes(dtype))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_of_every_width(bits):
    numbers = np.array([[0, 1, (1 << bits) - 1, 1], [1, 1, 0, (1 << bits) - 2]])
    packed = ["".join(f"{n:0{bits}b}" for n in row).ljust(-(-4 * bits // 8) * 8, "0") for row in numbers]
    rows = [b"\0" + int(row, 2).to_bytes(len(row) // 8, "big") for row in packed]
    Path("a.png").write_bytes(png(rows, 4, bits, 0))
    np.testing.assert_array_equal(read_depth(Path("a.png")), numbers)
    full = 65535 if bits == 16 else 255
    expected = np.rint(numbers * (full / ((1 << bits) - 1)))[..., None].repeat(3, 2)
    np.testing.assert_array_equal(read_rgb(Path("a.png")), expected)


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("predicted", [False, True])
def test_png_of_16_bits_a_channel(colour, channels, predicted):
    pixels = RANDOM.integers(0, 4096, (5, 7, channels)).astype(">u2")
    rows, above, size = [], np.zeros(14 * channels, int), 2 * channels
    for row in pixels:
        now = np.frombuffer(row.tobytes(), np.uint8).astype(int)
        left, corner = (np.concatenate([np.zeros(size, int), x[:-size]]) for x in (now, above))
        distances = np.abs(np.stack([above - corner, left - corner, left + above - 2 * corner]))
        paeth = np.choose(distances.argmin(0), [left, above, corner])
        rows.append(b"\4" + ((now - paeth) % 256).astype(np.uint8).tobytes() if predicted else b"\0" + row.tobytes())
        above = now
    Path("a.png").write_bytes(png(rows, 7, 16, colour))
    read = read_rgb(Path("a.png"))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, 2))


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_colours(planes, dtype):
    pixels = RANDOM.integers(0, 256, (5, 7, 4)).astype(dtype)
    stored = pixels if planes == "contig" else np.moveaxis(pixels, 2, 0)
    tifffile.imwrite("a.tif", stored, photometric="rgb", planarconfig=planes, extrasamples=["unassalpha"])
    read = read_rgb(Path("a.tif"))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, pixels[..., :3])
    with pytest.raises(InputError, match=r"a\.tif: expected an image of one channel, got RGB"):
        read_depth(Path("a.tif"))


def test_tiff_of_a_palette():
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :3] = np.array([[10, 20, 30], [200, 100, 0], [255, 255, 255]]).T * 257
    tifffile.imwrite("a.tif", indices, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(read_rgb(Path("a.tif"))[0], [[10, 20, 30], [200, 100, 0]])
    with pytest.raises(InputError, match="got a palette"):
        read_depth(Path("a.tif"))


def test_palettes_with_alpha(recwarn):
    colours = RANDOM.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    image = Image.fromarray(colours).convert("P")
    expected = np.asarray(image.convert("RGB"))
    image.convert("PA").save("a.tif")
    image.save("a.png", transparency=bytes(range(200)))
    recwarn.clear()
    for name in ("a.tif", "a.png"):
        np.testing.assert_array_equal(read_rgb(Path(name)), expected)
    assert not recwarn.list


def test_every_level_of_other_whites():
    """Spread to the nearest number of the type, and grey with more channels is said to be that."""
    for white in (1000, 4095):
        levels = np.arange(white + 1)
        Path("a.pgm").write_bytes(b"P5 %d 1 %d\n" % (white + 1, white) + levels.astype(">u2").tobytes())
        np.testing.assert_array_equal(read_rgb(Path("a.pgm"))[0, :, 0], np.rint(levels * 65535 / white))
    tifffile.imwrite("a.tif", np.zeros((4, 6, 2), np.uint8), photometric="minisblack", extrasamples=["unassalpha"])
    with pytest.raises(InputError, match="one channel, got grey and 1 more"):
        read_depth(Path("a.tif"))


def test_white_of_guides():
    """Where a file counts from white, or up to another number than its type does."""
    grey = np.array([[0, 1000, 4095]], np.uint16)
    tifffile.imwrite("white.tif", grey, photometric="miniswhite")
    np.testing.assert_array_equal(read_rgb(Path("white.tif"))[..., 1], 65535 - grey)
    Path("a.pgm").write_bytes(b"P5\n# twelve bits\n3 1\n4095\n" + grey.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_rgb(Path("a.pgm"))[..., 2], [[0, 16004, 65535]])
    np.testing.assert_array_equal(read_depth(Path("a.pgm")), grey)
    Path("b.pgm").write_bytes(b"P2 3 1 100 # text\n0 50 100\n")
    np.testing.assert_array_equal(read_rgb(Path("b.pgm"))[..., 0], [[0, 128, 255]])
    np.testing.assert_array_equal(read_depth(Path("b.pgm")), [[0, 50, 100]])


@pytest.mark.parametrize("top, white", [(200, 1023), (1023, 1023), (1024, 4095), (4095, 4095), (16384, 65535)])
def test_white_level(top, white):
    """12 bits in a file of 16 are no black image."""
    assert white_level(np.array([[[0, top, 3]]], np.uint16)) == white
    assert white_level(np.array([[[0, 3, 3]]], np.uint8)) == 255
    with pytest.raises(InputError, match="expected uint8 or uint16, got float32"):
        white_level(np.zeros((1, 1, 3), np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm(order):
    """Rows run from the last to the first; the sign of the third number is the order of the bytes."""
    depth = np.array([[1.5, np.inf], [-2, 3], [5, 1e30]], np.float32)
    head = b"Pf\n2 3\n%s0.25\n" % (b"-" if order == "<" else b"")
    Path("a.pfm").write_bytes(head + depth[::-1].astype(f"{order}f4").tobytes())
    np.testing.assert_array_equal(read_depth(Path("a.pfm")), depth)


ORIENTED = RANDOM.integers(0, 256, (8, 8)).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 24)], ids=["square", "wide"])
def test_orientation(orientation, ending, shape):
    """As a viewer shows it. Turns by 90 degrees keep the size of a square."""
    from PIL import ImageOps

    name, colours = f"a.{ending}", np.resize(np.repeat(np.repeat(ORIENTED, 8, 0), 8, 1), (8 * shape[0], 8 * shape[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if ending == "tif":
        tifffile.imwrite(name, colours, extratags=[(0x0112, "H", 1, orientation, True)])
        plain = Image.fromarray(colours)
        plain.save("b.png", exif=exif)
    else:
        Image.fromarray(colours).convert("RGB" if ending == "webp" else "L").save(
            name, exif=exif, **{"lossless": True} if ending == "webp" else {}
        )
    with Image.open("b.png" if ending == "tif" else name) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    read = read_rgb(Path(name))
    np.testing.assert_array_equal(read, expected)
    if orientation in (5, 6, 7, 8):
        assert read.shape[:2] == colours.shape[::-1]
    if ending in ("png", "tif"):
        np.testing.assert_array_equal(read_depth(Path(name)), expected[..., 0])


def test_orientation_6_is_a_quarter_to_the_right():
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.array([[1, 2, 3], [4, 5, 60000]], np.uint16)
    Image.fromarray(deep).save("a.png", exif=exif)
    np.testing.assert_array_equal(read_depth(Path("a.png")), [[4, 1], [5, 2], [60000, 3]])


def test_damaged_exif_is_no_reason_to_refuse():
    Image.fromarray(ORIENTED).save("a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nothing")
    np.testing.assert_array_equal(read_depth(Path("a.png")), ORIENTED)


def test_several_pages():
    """Overviews are no images of their own; several images are a question to the user."""
    with tifffile.TiffWriter("a.tif") as file:
        file.write(ORIENTED, photometric="minisblack", metadata=None)
        file.write(ORIENTED[::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
    np.testing.assert_array_equal(read_depth(Path("a.tif")), ORIENTED)
    tifffile.imwrite("b.tif", np.stack([ORIENTED] * 3), photometric="minisblack")
    for read in (read_depth, read_rgb):
        with pytest.raises(InputError, match=r"b\.tif: cannot be read: expected one page, there are 3"):
            read(Path("b.tif"))


def hostile():
    """Files that promise more than they hold, or more than is reasonable."""
    tifffile.imwrite("a.tif", np.zeros((64, 64), np.uint16), metadata=None)
    whole = Path("a.tif").read_bytes()
    yield "cut.tif", whole[: len(whole) // 2], "cannot be read"
    yield "head.tif", whole[:9], "cannot be read"
    tifffile.imwrite("b.tif", np.zeros((64, 64), np.uint16), metadata=None, compression="zlib", tile=(32, 32))
    yield "cut_tiles.tif", Path("b.tif").read_bytes()[:-20], "cannot be read"
    for name, tag in {"wide.tif": 256, "high.tif": 257}.items():
        with tifffile.TiffFile("a.tif") as file:
            offset = file.pages[0].tags[tag].valueoffset
        yield name, whole[:offset] + b"\xff\xff" + whole[offset + 2 :], "cannot be read"
    yield "big.pgm", b"P5\n100000 100000\n255\n", "100000 x 100000 is more than"
    yield "big.pfm", b"Pf\n100000 100000\n-1\n", "100000 x 100000 is more than"
    yield "cut.pgm", b"P5\n4 4\n255\n123", "cannot be read"
    yield "cut.pfm", b"Pf\n4 4\n-1\n123", "cannot be read"
    yield "few.pgm", b"P2\n4 4\n255\n1 2 3", "cannot be read"
    yield "more.pgm", b"P2\n2 1\n255\n1 300", "expected numbers up to 255, got 1 to 300"
    yield "letters.pgm", b"P2\n2 1\n255\n1 x", "cannot be read"
    yield "white.pgm", b"P5\n2 1\n0\n12", "expected a largest value of 1 to 65535, got 0"
    yield "nothing.pgm", b"P5\n", "expected width, height and largest value"
    yield "none.pgm", b"P5\n0 0\n255\n", "has no pixels"
    yield "minus.pgm", b"P5\n-1 4\n255\n" + bytes(16), "expected width, height and largest value"
    yield "negative.pfm", b"Pf\n-2 -2\n-1\n" + bytes(16), "cannot be read"
    yield (
        "big.png",
        png([b"\0" * 3], 2, 16, 2)[:16] + struct.pack(">II", 100_000, 100_000) + bytes(20),
        "cannot be read",
    )
    yield "cut.png", png([bytes(13)] * 2, 2, 16, 2)[:-30], "cannot be read"


def test_hostile_files():
    for name, content, message in hostile():
        Path(name).write_bytes(content)
        for read in (read_depth, read_rgb):
            with pytest.raises(InputError, match=rf"^{name}: .*{message}") as refused:
                read(Path(name))
            assert "\n" not in str(refused.value)


def test_size_is_looked_at_before_pixels(monkeypatch):
    """Of every format, and of the tiles of a TIFF too."""
    tifffile.imwrite("a.tif", ORIENTED, metadata=None)
    tifffile.imwrite("tile.tif", ORIENTED[:2, :2], metadata=None, tile=(64, 64), compression="zlib")
    write_depth(Path("a.pfm"), ORIENTED.astype(np.float32))
    for name in ("a.png", "a.pgm"):
        write_depth(Path(name), ORIENTED)
    monkeypatch.setattr(files, "MAX_PIXELS", 63)
    for name in ("a.tif", "tile.tif", "a.png", "a.pgm", "a.pfm"):
        with pytest.raises(InputError, match=rf"{name}: (8 x 8|64 x 64) is more than 63 pixels"):
            read_depth(Path(name))


@pytest.mark.parametrize("name", ["a.npy", "a.tiff"])
def test_beyond_float32_no_other_format_helps(name):
    expected = r"from 1 to 3.5e\+38 cannot be stored as float32: expected depth in a larger unit$"
    with pytest.raises(InputError, match=expected):
        files.as_stored(np.array([[1.0, 3.5e38]]), np.dtype(np.float32), Path(name))
