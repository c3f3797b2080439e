"""Bad and odd files, each made here, each with the verdict that decoding has to come to."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

OK = "ok"
SIDE_PX = 48


@dataclass(frozen=True)
class OddFile:
    """One kind of file.

    Args:
        name: what is odd about it.
        data: the file.
        verdict: `OK` or the error's type. One is right: Pillow and the libraries in its wheels are pinned.
    """

    name: str
    data: bytes
    verdict: str


def pixels(height: int = SIDE_PX, width: int = SIDE_PX) -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, 40 + 0 * rows], axis=-1).astype(np.uint8)


def encoded(file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels()).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)
    )


def png(width: int, height: int, *extra: bytes, data: bytes | None = None, depth: int = 8, color: int = 2) -> bytes:
    """A PNG by hand; without `data` its pixels are black."""
    row = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 3) + 7) // 8
    if data is None:
        data = zlib.compress(bytes(row * height), 1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], payload: bytes = b"", big_endian: bool = False) -> bytes:
    """A TIFF of one directory by hand: (tag, type, count, value or offset)."""
    order = ">" if big_endian else "<"
    head = struct.pack(f"{order}2sHI", b"MM" if big_endian else b"II", 42, 8)
    table = b"".join(struct.pack(f"{order}HHII", *entry) for entry in sorted(entries))
    return head + struct.pack(f"{order}H", len(entries)) + table + bytes(4) + payload


def offset_of_payload(entries: int) -> int:
    return 8 + 2 + 12 * entries + 4


def tiff_of(width: int, height: int, strip: bytes, *more: tuple[int, int, int, int], compression: int = 1) -> bytes:
    """A grey TIFF of one strip."""
    count = 9 + len(more)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
        (273, 4, 1, offset_of_payload(count)), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(strip)),
    ]  # fmt: skip
    return tiff(*entries, *more, payload=strip)


def greedy_directory(entries: int, size: int) -> bytes:
    """A TIFF or EXIF block whose entries all name the same bytes: Pillow would copy them for each."""
    table = [(1_000 + n, 7, size, offset_of_payload(entries)) for n in range(entries)]
    return tiff(*table, payload=bytes(size))


def jpeg_with(marker: int, *bodies: bytes, after: bytes | None = None) -> bytes:
    """A good JPEG with segments put in behind its start."""
    plain = encoded("JPEG", quality=90) if after is None else after
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for body in bodies)
    return plain[:2] + segments + plain[2:]


def webp_with(*extra: tuple[bytes, bytes], canvas: tuple[int, int] = (SIDE_PX, SIDE_PX), flags: int = 0) -> bytes:
    """A WebP of the extended form with chunks put in."""
    plain = encoded("WEBP", lossless=True)
    sizes = (canvas[0] - 1).to_bytes(3, "little") + (canvas[1] - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + sizes + plain[12:]
    for name, data in extra:
        body += name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def gif(*parts: bytes, width: int = SIDE_PX, height: int = SIDE_PX) -> bytes:
    palette = bytes(range(256)) * 3
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + palette[:768] + b"".join(parts) + b";"


def gif_frame(width: int = SIDE_PX, height: int = SIDE_PX, left: int = 0) -> bytes:
    """A frame of one colour, its codes never growing: clear, pixel, clear, pixel …"""
    codes, bits, used, out = [256, 7] * (width * height) + [257], 0, 0, bytearray()
    for code in codes:
        bits |= code << used
        used += 9
        while used >= 8:
            out.append(bits & 0xFF)
            bits >>= 8
            used -= 8
    out.append(bits & 0xFF)
    blocks = b"".join(bytes([len(out[i : i + 255])]) + bytes(out[i : i + 255]) for i in range(0, len(out), 255))
    return b"," + struct.pack("<HHHHB", left, 0, width, height, 0) + b"\x08" + blocks + b"\0"


def ico(*pictures: bytes, claimed: int = 16) -> bytes:
    head = struct.pack("<HHH", 0, 1, len(pictures))
    offset = 6 + 16 * len(pictures)
    table = b""
    for picture in pictures:
        table += struct.pack("<BBBBHHII", claimed, claimed, 0, 0, 1, 32, len(picture), offset)
        offset += len(picture)
    return head + table + b"".join(pictures)


def bmp_claiming(width: int, height: int) -> bytes:
    plain = bytearray(encoded("BMP"))
    plain[18:26] = struct.pack("<ii", width, height)
    return bytes(plain)


def with_exif(block: bytes) -> bytes:
    return b"Exif\0\0" + block


def odd_files() -> Iterator[OddFile]:
    """All kinds; the sizes that are refused are beyond 10 million pixels, the rest small."""

    def kind(name: str, data: bytes, verdict: str = OK) -> OddFile:
        return OddFile(name, data, verdict)

    jpeg, plain_png, webp = encoded("JPEG", quality=90), encoded("PNG"), encoded("WEBP")
    # No picture at all.
    yield kind("empty", b"", "Empty")
    yield kind("one byte", b"\xff", "NotAPicture")
    yield kind("zeros", bytes(5000), "NotAPicture")
    yield kind("text", b"no picture, just words\n" * 40, "NotAPicture")
    yield kind("html error page", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "NotAPicture")
    yield kind("xml of a store's error", b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>', "NotAPicture")
    yield kind("svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "UnsupportedFormat")
    yield kind("pdf", b"%PDF-1.7\n1 0 obj <<>> endobj\n%%EOF", "NotAPicture")
    yield kind("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "NotAPicture")
    yield kind("zip", b"PK\x05\x06" + bytes(18), "NotAPicture")
    yield kind("elf program", b"\x7fELF\x02\x01\x01" + bytes(200), "NotAPicture")
    yield kind("pickle", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x07picture\x94.", "NotAPicture")
    yield kind("git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "NotAPicture")
    yield kind(
        "photoshop", b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(40), "UnsupportedFormat"
    )
    yield kind("fits", b"SIMPLE  =                    T" + b" " * 2850, "UnsupportedFormat")
    yield kind("mpeg", b"\0\0\x01\xb3" + bytes(100), "NotAPicture")
    yield kind("grib", b"GRIB\0\0\0\x01" + bytes(100), "UnsupportedFormat")
    yield kind("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(100), "UnsupportedFormat")
    # Cut off.
    for name, whole in (("jpeg", jpeg), ("png", plain_png), ("bmp", encoded("BMP"))):
        yield kind(f"{name} cut in the pixels", whole[: len(whole) * 2 // 3], "Truncated")
    # libwebp reports no reason.
    yield kind("webp cut in the pixels", webp[: len(webp) * 2 // 3], "Broken")
    yield kind("gif cut in the pixels", encoded("GIF", "P")[:-400], "Truncated")
    yield kind("tiff cut in the pixels", tiff_of(SIDE_PX, SIDE_PX, bytes(900)), "Truncated")
    yield kind("ppm cut in the pixels", encoded("PPM")[:-300], "Truncated")
    yield kind("jpeg 2000 cut", encoded("JPEG2000")[:300], "Broken")
    yield kind("avif cut", encoded("AVIF")[:-60], "Truncated")
    for name, whole in (("png", plain_png), ("webp", webp), ("gif", encoded("GIF", "P"))):
        yield kind(f"{name} cut in the header", whole[:11], "NotAPicture")
    yield kind("jpeg cut in the header", jpeg[:11], "Truncated")
    yield kind("jpeg without its end mark", jpeg[:-2], "Truncated")
    yield kind("png without IEND", plain_png[:-12])
    # Broken.
    yield kind("jpeg with zeros in the pixels", jpeg[:-200] + bytes(198) + b"\xff\xd9")
    yield kind("png with a wrong checksum", plain_png[:-16] + b"\0\0\0\0" + plain_png[-12:])
    yield kind("png with broken deflate", png(9, 9, data=b"no deflate"), "Broken")
    yield kind("png with too little data", png(9, 9, data=zlib.compress(bytes(30))), "Truncated")
    yield kind("png with too much data", png(9, 9, data=zlib.compress(bytes(50_000_000))))
    yield kind("png without pixels", plain_png[:33] + chunk(b"IEND", b""), "Broken")
    yield kind("png of 0x0", png(0, 0), "NotAPicture")
    yield kind("png of an unknown depth", png(9, 9, depth=7), "NotAPicture")
    yield kind("png of an unknown colour type", png(9, 9, color=5), "NotAPicture")
    yield kind("png palette without a palette", png(9, 9, color=3))
    yield kind("tiff without pixels", tiff((256, 4, 1, 9), (257, 4, 1, 9)), "NotAPicture")
    yield kind("tiff whose directory is outside", b"II*\0\xff\xff\xff\x7f", "NotAPicture")
    yield kind("tiff of an unknown compression", tiff_of(9, 9, bytes(81), compression=60_000), "NotAPicture")
    yield kind("tiff whose deflate is broken", tiff_of(9, 9, b"x" * 81, compression=8), "Broken")
    yield kind("tiff whose directory is its own successor", tiff_of(9, 9, bytes(81))[:-85] + b"\x08\0\0\0" + bytes(81))
    yield kind("webp with a broken stream", webp[:40] + bytes(len(webp) - 40))
    yield kind("gif without a frame", gif(), "NotAPicture")
    yield kind("icon without pictures", ico(), "NotAPicture")
    yield kind("icon whose picture is outside", ico()[:4] + b"\x01\0" + b"\xff" * 16, "NotAPicture")
    yield kind("ppm of a negative size", b"P6\n-9 9\n255\n" + bytes(300), "NotAPicture")
    yield kind("ppm of a maximum of 0", b"P6\n9 9\n0\n" + bytes(300), "Broken")
    yield kind("ppm of endless digits", b"P6\n" + b"9" * 100_000, "Broken")
    yield kind("bmp of a negative width", bmp_claiming(-9, 9), "TooLarge")
    # Bombs and giant canvases: refused for their size.
    yield kind("png bomb", png(40_000, 40_000, data=zlib.compress(bytes(1 << 20))), "TooLarge")
    yield kind("png of 2^31 - 1 squared", png(2**31 - 1, 2**31 - 1, data=b""), "TooLarge")
    yield kind("jpeg of 65,500 squared", jpeg_claiming(65_500, 65_500), "TooLarge")
    yield kind("gif of 65,535 squared", gif(gif_frame(1, 1), width=65_535, height=65_535), "TooLarge")
    yield kind(
        "gif whose frame is the bomb",
        gif(b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x08\0"),
        "TooLarge",
    )
    yield kind("bmp of 100,000 squared", bmp_claiming(100_000, 100_000), "TooLarge")
    yield kind("tiff of 100,000 squared", tiff_of(100_000, 100_000, bytes(100)), "TooLarge")
    yield kind("tiff tile larger than the picture", tiff_tiled(9, 9, 65_536, 65_536), "TooLarge")
    yield kind("webp canvas", webp_with(canvas=(16_384, 16_384), flags=2), "TooLarge")
    yield kind("webp lossless size", webp_lossless_claiming(16_384, 16_384), "TooLarge")
    yield kind("webp lossy size", webp_lossy_claiming(16_383, 16_383), "TooLarge")
    yield kind("ppm of 100,000 squared", b"P6 100000 100000 255\n" + bytes(100), "TooLarge")
    yield kind("jpeg 2000 of 100,000 squared", jpeg2000_claiming(100_000, 100_000), "TooLarge")
    yield kind("icon that holds a bomb", ico(png(40_000, 40_000, data=b"x")), "TooLarge")
    yield kind(
        "icon that holds a giant bitmap",
        ico(struct.pack("<IiiHHIIiiII", 40, 40_000, 80_000, 1, 32, *[0] * 6)),
        "TooLarge",
    )
    yield kind(
        "tga of 65,535 squared",
        b"\0\0\x02" + bytes(9) + struct.pack("<HHBB", 65_535, 65_535, 24, 0) + bytes(99),
        "TooLarge",
    )
    yield kind(
        "sgi of 65,535 squared", struct.pack(">HBBHHHH", 474, 0, 1, 3, 65_535, 65_535, 3) + bytes(600), "TooLarge"
    )
    yield kind(
        "pcx of 65,535 squared",
        b"\x0a\x05\x01\x08" + struct.pack("<4H53xBH", 0, 0, 65_534, 65_534, 1, 65_535) + bytes(960),
        "TooLarge",
    )
    yield kind("dds of 65,535 squared", dds_claiming(65_535, 65_535), "TooLarge")
    yield kind("avif of a false size", avif_claiming(60_000, 60_000), "NotAPicture")
    # Giant metadata.
    yield kind("png text bomb", png(9, 9, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28), 9))), "Broken")
    yield kind("png profile bomb", png(9, 9, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 28), 9))), "Broken")
    yield kind(
        "png with 200 text bombs",
        png(9, 9, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))] * 200),
        "Broken",
    )
    yield kind("png with 8 MB of comments", png(9, 9, *[chunk(b"tEXt", b"a\0" + b"x" * 1_000_000)] * 8))
    yield kind("png with a greedy exif", png(9, 9, chunk(b"eXIf", greedy_directory(60_000, 1 << 20))))
    yield kind("png with a greedy exif behind the pixels", late_exif(greedy_directory(60_000, 1 << 20)))
    yield kind("png with a greedy exif as text", png(9, 9, exif_text(greedy_directory(20_000, 200_000))))
    yield kind("jpeg with a greedy exif", jpeg_with(0xE1, with_exif(greedy_directory(3000, 25_000))))
    yield kind("jpeg with a greedy exif in parts", jpeg_with(0xE1, *exif_in_parts(greedy_directory(60_000, 1 << 19))))
    yield kind("jpeg with a greedy mpo directory", jpeg_with(0xE2, b"MPF\0" + greedy_directory(3000, 25_000)))
    yield kind("webp with a greedy exif", webp_with((b"EXIF", greedy_directory(60_000, 1 << 20)), flags=8))
    yield kind("tiff with a greedy directory", greedy_directory(60_000, 1 << 20), "MetadataTooLarge")
    yield kind(
        "jpeg with 16 MB of profiles",
        jpeg_with(0xE2, *[b"ICC_PROFILE\0" + bytes([n + 1, 255]) + bytes(65_000) for n in range(255)]),
    )
    yield kind("jpeg with 6 MB of comments", jpeg_with(0xFE, *[b"x" * 65_000] * 100))
    yield kind("gif with a comment of 1 kB", gif(b"!\xfe" + (b"\xff" + b"x" * 255) * 4 + b"\0", gif_frame()))
    endless = b"!\xfe" + (b"\xff" + b"x" * 255) * 20_000 + b"\0"
    yield kind("gif with an endless comment", gif(endless, gif_frame()), "MetadataTooLarge")
    yield kind("gif with endless comments", gif(b"!\xfe\x01x\0" * 400_000, gif_frame()), "MetadataTooLarge")
    yield kind("jpeg with 40 MB of exif", jpeg_with(0xE1, *[with_exif(bytes(65_000))] * 620), "MetadataTooLarge")
    yield kind("gif of 30,000 frames", gif(gif_frame(), *[gif_frame(1, 1)] * 30_000))
    yield kind("gif whose frame is outside", gif(gif_frame(8, 8, left=200)))
    yield kind("apng of 5,000 frames", png(9, 9, chunk(b"acTL", struct.pack(">II", 5_000, 0))))
    yield kind("jpeg of 40,000 scans", endless_scans(40_000), "TooManyScans")
    # Odd, and good.
    yield kind("jpeg named otherwise", jpeg)
    yield kind("progressive jpeg", encoded("JPEG", progressive=True))
    yield kind("grey jpeg", encoded("JPEG", "L"))
    yield kind("cmyk jpeg", encoded("JPEG", "CMYK"))
    yield kind("jpeg with words behind its end", jpeg + b"words" * 100)
    yield kind("jpeg with a broken exif", jpeg_with(0xE1, with_exif(b"MM\0*garbage")))
    yield kind(
        "jpeg whose exif points to itself",
        jpeg_with(0xE1, with_exif(b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0")),
    )
    yield kind("jpeg with padding between its segments", jpeg[:2] + b"\xff" * 9 + jpeg[2:])
    yield kind("png with words behind its end", plain_png + b"words")
    yield kind("png of 1 bit", encoded("PNG", "1"))
    yield kind("png of 16 bits", png(SIDE_PX, SIDE_PX, depth=16, color=0))
    yield kind("png of 16 bit colours", png(SIDE_PX, SIDE_PX, depth=16, color=2))
    yield kind("png with an unknown chunk", png(9, 9, chunk(b"abCd", bytes(1000))))
    yield kind("png palette with alpha", encoded("PNG", "P", transparency=0))
    yield kind("one pixel", png(1, 1))
    yield kind("one row of 20,000", png(20_000, 1))
    yield kind("one column of 20,000", png(1, 20_000))
    yield kind("tiff big-endian", encoded("TIFF", tiffinfo={}))
    yield kind("tiff lzw", encoded("TIFF", compression="tiff_lzw"))
    yield kind("tiff of float", float_tiff())
    yield kind("webp animation", webp_animation())
    yield kind("webp lossless", encoded("WEBP", lossless=True))
    yield kind("avif", encoded("AVIF"))
    yield kind("jpeg 2000", encoded("JPEG2000"))
    yield kind("bmp top down", bmp_claiming(SIDE_PX, -SIDE_PX))
    yield kind("plain pbm", b"P1\n# a comment\n2 2\n0 1 1 0\n")
    yield kind("tga", encoded("TGA"))
    yield kind("icon", encoded("ICO"))


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG", quality=90))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg2000_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG2000", no_jp2=True))
    start = data.index(b"\xff\x51")
    data[start + 6 : start + 14] = struct.pack(">II", width, height)
    return bytes(data)


def avif_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded("AVIF"))
    start = data.index(b"ispe") + 8
    data[start : start + 8] = struct.pack(">II", width, height)
    return bytes(data)


def dds_claiming(width: int, height: int) -> bytes:
    head = struct.pack("<7I44x", 124, 0x1007, height, width, 0, 0, 0)
    pixel_format = struct.pack("<8I", 32, 0x40, 0, 24, 0xFF0000, 0xFF00, 0xFF, 0)
    return b"DDS " + head + pixel_format + bytes(20) + bytes(100)


def webp_lossless_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded("WEBP", lossless=True))
    data[21:25] = ((width - 1) | (height - 1) << 14).to_bytes(4, "little")
    return bytes(data)


def webp_lossy_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded("WEBP"))
    assert data[12:16] == b"VP8 "
    data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


def webp_animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(np.roll(pixels(), 9 * n, axis=1)) for n in range(4)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def tiff_tiled(width: int, height: int, tile_width: int, tile_height: int) -> bytes:
    count = 11
    tile = zlib.compress(bytes(1 << 24), 9)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
        (322, 4, 1, tile_width), (323, 4, 1, tile_height), (324, 4, 1, offset_of_payload(count)),
        (325, 4, 1, len(tile)), (339, 3, 1, 1),
    ]  # fmt: skip
    return tiff(*entries, payload=tile)


def float_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE_PX, SIDE_PX), np.nan, np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def late_exif(block: bytes) -> bytes:
    plain = png(9, 9)
    return plain[:-12] + chunk(b"eXIf", block) + plain[-12:]


def exif_text(block: bytes) -> bytes:
    hexadecimal = with_exif(block).hex()
    text = f"\nexif\n{len(hexadecimal) // 2:8d}\n{hexadecimal}"
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text.encode()))


def exif_in_parts(block: bytes) -> list[bytes]:
    return [with_exif(block[start : start + 65_000]) for start in range(0, len(block), 65_000)]


def endless_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan many times, on a canvas of 3000x3000."""
    data = bytearray(encoded("JPEG", progressive=True))
    start = data.index(b"\xff\xc2")
    data[start + 5 : start + 9] = struct.pack(">HH", 3000, 3000)
    last = data.rindex(b"\xff\xda")
    return bytes(data[:-2]) + bytes(data[last:-2]) * count + b"\xff\xd9"


def mutations(seeds: list[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """Real files with bytes flipped, cut, doubled, swapped and overwritten by what often breaks parsers."""
    random = np.random.default_rng(seed)
    edges = [
        b"\0",
        b"\xff",
        b"\x7f",
        b"\x80",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
    ]

    def flip(data: bytearray, at: int) -> None:
        data[at] ^= 1 << int(random.integers(8))

    def overwrite(data: bytearray, at: int) -> None:
        edge = edges[int(random.integers(len(edges)))]
        data[at : at + len(edge)] = edge

    def cut(data: bytearray, at: int) -> None:
        del data[at : at + int(random.integers(1, 64))]

    def double(data: bytearray, at: int) -> None:
        data[at:at] = data[at : at + int(random.integers(1, 64))]

    def end(data: bytearray, at: int) -> None:
        del data[at:]

    acts: list[Callable[[bytearray, int], None]] = [flip, flip, overwrite, overwrite, cut, double]
    for _ in range(count):
        data = bytearray(seeds[int(random.integers(len(seeds)))])
        for _ in range(int(random.integers(1, 6))):
            # Headers are where it hurts.
            reach = min(len(data), 600) if random.random() < 0.6 else len(data)
            acts[int(random.integers(len(acts)))](data, int(random.integers(max(1, reach))))
            if not data:
                break
        if data and random.random() < 0.05:
            end(data, int(random.integers(len(data))))
        yield bytes(data)
