"""A large tiled TIFF through the job with --mode tile: peak memory, and time over that of the bare engine.

python tests/benchmarks/large_pictures.py --folder out/large --side 20000 --model shapes

The picture is drawn block by block (the field scene, repeated) and written as a tiled, deflated BigTIFF, so that making
it takes little memory. Memory is the highest resident size of the job's process, as Linux counts it. The bare engine
runs the same tiles, read by the job's own raster, on one thread, as the job does. On a busy machine compare seconds of
the processor.
"""

import argparse
import json
import re
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

_TILE = 256
_JOB = """
import re, sys
from pipeline.app.launcher import main
status = main(sys.argv[1:])
print("PEAK", re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(status)
"""


def write_picture(path: Path, height: int, width: int, *, sparse: bool) -> None:
    """Writes a tiled, deflated BigTIFF of 8-bit RGB.

    Args:
        path: of the file.
        height: px.
        width: px.
        sparse: whether nine of ten tiles are left out, and so are black.
    """
    from model.samples.field import draw_field

    block = draw_field(1, 0, 8 * _TILE, 8 * _TILE).image
    parts = [
        zlib.compress(block[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE].tobytes(), 1)
        for row in range(8)
        for column in range(8)
    ]
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    places: list[tuple[int, int]] = []
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        for row in range(rows):
            for column in range(columns):
                if sparse and (row * columns + column) % 10:
                    places.append((0, 0))
                    continue
                part = parts[row % 8 * 8 + column % 8]
                places.append((file.tell(), len(part)))
                file.write(part)
        offsets = file.tell()
        file.write(struct.pack(f"<{len(places)}Q", *(offset for offset, _ in places)))
        sizes = file.tell()
        file.write(struct.pack(f"<{len(places)}Q", *(size for _, size in places)))
        directory = file.tell()
        bits = struct.unpack("<Q", struct.pack("<4H", 8, 8, 8, 0))[0]
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3),
            (284, 3, 1, 1), (322, 3, 1, _TILE), (323, 3, 1, _TILE), (324, 16, len(places), offsets),
            (325, 16, len(places), sizes),
        ]  # fmt: skip
        file.write(struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags) + bytes(8))
        file.seek(8)
        file.write(struct.pack("<Q", directory))


def bare_seconds(path: Path, model_name: str, overlap: float) -> tuple[int, float, float]:
    """The number of tiles, and the seconds and processor seconds that the engine alone takes for them on one thread."""
    from pipeline.core.process import prepare_process
    from pipeline.core.ranged_file import RangedFile
    from pipeline.core.tiff_windows import TiffWindows
    from pipeline.engines.backends import AUTO, FLOAT32
    from pipeline.engines.base import input_batch
    from pipeline.engines.load import load_engine
    from pipeline.engines.model_folder import open_model
    from pipeline.segmenting.modes import make_mode
    from pipeline.segmenting.preparing import model_inputs

    prepare_process()  # else Pillow refuses large pictures
    model = open_model(model_name, backend=AUTO, precision=FLOAT32)
    engine = load_engine(model, 1)
    with path.open("rb") as file:

        def read_range(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        raster = TiffWindows.open(RangedFile(read_range, path.stat().st_size), model.spec.channels)
        assert raster is not None
        mode = make_mode("tile", model.spec, tile_overlap=overlap)
        tiles, seconds, cpu_s = 0, 0.0, 0.0
        for _, taken in model_inputs(raster, mode, model.spec, dict.fromkeys(("decode", "resize"), 0.0), keep=True):
            batch = input_batch([taken])
            begin, begin_cpu = time.perf_counter(), time.thread_time()
            engine.logits(batch)
            seconds += time.perf_counter() - begin
            cpu_s += time.thread_time() - begin_cpu
            tiles += 1
    return tiles, seconds, cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="gets the picture and the outputs")
    parser.add_argument("--side", type=int, default=20_000, help="height and width, px")
    parser.add_argument("--width", type=int, help="width, px, if it is another")
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--tile_overlap", type=float, default=0.25)
    parser.add_argument("--sparse", action="store_true", help="leave nine of ten tiles of the TIFF out")
    parser.add_argument("--no_bare", action="store_true", help="measure the job alone")
    values = parser.parse_args()
    width = values.width or values.side
    folder = values.folder / f"{width}x{values.side}{'_sparse' if values.sparse else ''}"
    (folder / "in").mkdir(parents=True, exist_ok=True)
    picture = folder / "in" / "picture.tif"
    if not picture.exists():
        write_picture(picture, values.side, width, sparse=values.sparse)
    options = ["--input", folder / "in", "--model", values.model, "--output", folder / "out", "--existing", "overwrite"]
    options += ["--mode", "tile", "--tile_overlap", values.tile_overlap, "--threads", 1]
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _JOB, *map(str, options)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    peak_mb = int(re.findall(r"PEAK (\d+)", done.stdout)[0]) / 1024
    stages = json.loads((folder / "out/summary.json").read_text("utf-8"))["run"]["stages"]
    mask_mb = (folder / "out/masks/picture.tif.png").stat().st_size / 1e6
    print(f"{width}x{values.side} px, {picture.stat().st_size / 1e6:,.0f} MB as TIFF, mask {mask_mb:.1f} MB")
    print(f"job: {seconds:.1f} s, peak {peak_mb:,.0f} MB; stages, s: " + json.dumps(stages))
    computing = sum(stages.get(name, 0.0) for name in ("decode", "resize", "infer", "mask", "count", "encode"))
    print(
        f"computing {computing:.1f} s, of which the engine {stages['infer']:.1f} s: {computing / stages['infer']:.2f}"
    )
    print(f"processor: {cpu_s:.1f} s, start included")
    if not values.no_bare:
        tiles, bare, bare_cpu = bare_seconds(picture, values.model, values.tile_overlap)
        print(f"bare engine: {tiles:,} tiles in {bare:.1f} s, processor {bare_cpu:.1f} s")
        print(f"computing / bare {computing / bare:.2f}; processor / bare {cpu_s / bare_cpu:.2f}")


if __name__ == "__main__":
    main()
