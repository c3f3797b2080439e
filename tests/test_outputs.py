"""What is written besides the tables: masks or none, overlays, probabilities, many classes; and who can load it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_archive import TINY_MODEL, Archive, Finished, run_job

from pipeline.core.labels import LabelMap
from pipeline.core.overlay import overlay
from pipeline.core.recipe import Recipe
from pipeline.core.records import FileRef, Located, PictureRecord
from pipeline.core.resize import mask_from_logits, probabilities_from_logits
from pipeline.core.spec import ClassSpec
from pipeline.engines.base import Batch, Logits
from pipeline.engines.model_folder import open_model
from pipeline.output.mask_output import MaskOutput
from pipeline.output.outputs import Destination
from pipeline.segmenting.segmenter import Segmenter
from pipeline.storage import filesystem


def test_without_masks_the_tables_stay_the_same(archive: Archive, scored_job: Finished, tmp_path: Path) -> None:
    sources = ["--input", archive.images, "--ground_truth", archive.masks]
    job = run_job(tmp_path / "out", *sources, "--mask_format", "none")
    assert job.status == 0
    assert not (job.output / "masks").exists()
    assert job.summary["confusion_matrix"] == scored_job.summary["confusion_matrix"]
    assert [row | {"mask_uri": None} for row in scored_job.rows] == job.rows
    again = run_job(tmp_path / "out", *sources, "--mask_format", "none")
    assert again.summary["run"]["resumed"] == len(archive.image_ids)
    with_masks = run_job(tmp_path / "out", *sources)
    assert with_masks.masks.keys() == scored_job.masks.keys()
    without = run_job(tmp_path / "out", *sources, "--mask_format", "none", "--prune")
    assert without.masks == {}


def test_overlays_and_probabilities_are_beside_the_masks(archive: Archive, tmp_path: Path) -> None:
    options = ["--input", archive.images, "--overlays", 6, "--probabilities"]
    job = run_job(tmp_path / "out", *options)
    assert job.status == 0, job.err
    overlays = {p.relative_to(job.output / "overlays").as_posix()[:-4] for p in job.output.glob("overlays/**/*.png")}
    assert len(overlays) == 6
    assert overlays < set(archive.image_ids)
    for image_id in overlays:
        drawn = np.asarray(Image.open(job.output / f"overlays/{image_id}.png")).astype(int)
        pixels = archive.pixels(image_id).astype(int)
        assert drawn.shape == pixels.shape
        assert 5 < np.abs(drawn - pixels).mean() < 120
    for image_id, mask in job.masks.items():
        planes = np.asarray(Image.open(job.output / f"probabilities/{image_id}.png"))
        assert planes.dtype == np.uint8
        planes = planes.reshape(3, *mask.shape)
        assert np.abs(planes.astype(int).sum(axis=0) - 255).max() <= 2
        of_mask = np.take_along_axis(planes, mask[None].astype(int), axis=0)[0]
        assert np.array_equal(of_mask, planes.max(axis=0))
    (archive_less := tmp_path / "less").mkdir()
    for image_id in sorted(archive.image_ids)[:3]:
        path = archive_less / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((archive.images / image_id).read_bytes())
    fewer = run_job(tmp_path / "out", "--input", archive_less, "--overlays", 99, "--probabilities", "--prune")
    for kind in ("masks", "overlays", "probabilities"):
        assert len(list((fewer.output / kind).rglob("*.png"))) == 3, kind


def test_the_mask_of_a_picture_is_written_last(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write_bytes = filesystem.write_bytes

    def noting(uri: str, data: bytes, *more: object) -> None:
        write_bytes(uri, data, *more)  # type: ignore[arg-type]
        written.append(uri.removeprefix(f"{tmp_path}/out/"))

    monkeypatch.setattr(filesystem, "write_bytes", noting)
    run_job(tmp_path / "out", "--input", archive.images, "--overlays", 20, "--probabilities")
    for image_id in archive.image_ids:
        order = [name.partition("/")[0] for name in written if name.partition("/")[2] == f"{image_id}.png"]
        assert sorted(order) == ["masks", "overlays", "probabilities"]
        assert order[-1] == "masks"


def test_overlays_and_probabilities_that_are_no_longer_requested_are_deleted(archive: Archive, tmp_path: Path) -> None:
    def overlays(*options: object) -> set[str]:
        job = run_job(tmp_path / "out", "--input", archive.images, "--prune", *options)
        assert job.status == 0, job.err
        assert len(job.masks) == (0 if "none" in options else len(archive.image_ids))
        assert (job.output / "probabilities").exists() == ("--probabilities" in options)
        return {path.name for path in job.output.glob("overlays/**/*.png")}

    six = overlays("--overlays", 6, "--probabilities")
    two = overlays("--overlays", 2)
    assert (len(six), len(two)) == (6, 2)
    assert two < six
    assert overlays("--overlays", 3, "--mask_format", "none") > two
    assert overlays("--mask_format", "none") == set()
    assert not (tmp_path / "out/overlays").exists()


@pytest.mark.full
def test_the_choice_of_overlays_depends_on_the_ids_only(archive: Archive, tmp_path: Path) -> None:
    chosen = []
    for name, more in (("one", []), ("two", ["--batch_size", 3, "--threads", 1])):
        job = run_job(tmp_path / name, "--input", archive.images, "--overlays", 4, *more)
        chosen.append({p.relative_to(job.output): p.read_bytes() for p in job.output.glob("overlays/**/*.png")})
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 4


def test_probabilities_are_the_softmax_of_the_enlarged_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (8, 8, 5)).astype(np.float32)
    same_size = probabilities_from_logits(logits, 8, 8)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=-1, keepdims=True)
    assert np.abs(same_size - 255 * exact.transpose(2, 0, 1)).max() <= 0.501
    larger = probabilities_from_logits(logits, 31, 50)
    mask = mask_from_logits(logits, 31, 50)
    of_mask = np.take_along_axis(larger, mask[None].astype(int), axis=0)[0]
    assert np.array_equal(of_mask, larger.max(axis=0))
    huge = probabilities_from_logits(np.float32(1e30) * np.tile(np.float32([1, 0, -1]), (2, 2, 1)), 4, 4)
    assert huge[0].min() == 255


def test_an_overlay_shows_the_classes_and_their_edges() -> None:
    pixels = np.full((6, 8, 1), 100, np.uint8)
    mask = np.zeros((6, 8), np.uint8)
    mask[:, 4:] = 1
    classes = [ClassSpec(0, "background", "#000000"), ClassSpec(1, "object", "#ff0000")]
    drawn = overlay(pixels, mask, classes)
    assert drawn[3, 0].tolist() == drawn[3, 3].tolist() == [100, 100, 100]
    assert drawn[3, 7].tolist() == [170, 55, 55]
    assert drawn[3, 4].tolist() == [255, 0, 0]


class ManyClasses:
    """300 classes: the one whose number is the pixel's red plus 44 wins."""

    def logits(self, batch: Batch) -> Logits:
        answer = np.zeros((*batch.shape[:3], 300), np.float32)
        np.put_along_axis(answer, batch[..., :1].astype(int) + 44, 9.0, axis=-1)
        return answer


def test_more_than_256_classes_give_16_bit_masks(tmp_path: Path) -> None:
    model = open_model(str(TINY_MODEL))
    classes = tuple(ClassSpec(number, f"class {number}", f"#{number:06x}") for number in range(300))
    spec = replace(model.spec, classes=classes)
    recipe = Recipe(spec, "digest", LabelMap.identity(300), None, 10**6)
    destination = Destination(str(tmp_path / "out"), (MaskOutput(recipe),))
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    truth = pixels[..., 0].astype(np.uint16) + 44
    Image.fromarray(truth).save(tmp_path / "t.png")
    located = Located("a.png", FileRef(str(tmp_path / "a.png")), FileRef(str(tmp_path / "t.png")))
    (record,), _ = Segmenter(recipe, destination, ManyClasses()).segment([located])
    assert isinstance(record, PictureRecord)
    written = Image.open(tmp_path / "out/masks/a.png.png")
    assert written.mode == "I;16"
    assert np.array_equal(np.asarray(written), truth)
    assert record.value("confusion") == (44 * 300 + 44, 512, 299 * 300 + 299, 512)


def test_pandas_and_duckdb_load_the_tables_as_they_are(scored_job: Finished) -> None:
    pandas = pytest.importorskip("pandas")
    duckdb = pytest.importorskip("duckdb")
    shards = sorted((scored_job.output / "images").glob("*.parquet"))
    frame = pandas.concat([pandas.read_parquet(shard) for shard in shards])
    assert sorted(frame["image_id"]) == sorted(scored_job.masks)
    assert int(frame["area_px_red"].sum()) == scored_job.summary["classes"][0]["area"]["px"]
    ((total, mean),) = duckdb.sql(
        f"select sum(area_px_red), avg(iou_red) from '{scored_job.output}/images/*.parquet'"
    ).fetchall()
    assert total == scored_job.summary["classes"][0]["area"]["px"]
    assert mean == pytest.approx(scored_job.summary["classes"][0]["samplewise_iou"])
    classes = pandas.read_csv(scored_job.output / "summary.csv")
    assert classes["name"].tolist() == ["red", "green", "blue"]
    loaded = duckdb.sql(f"select name, iou from '{scored_job.output}/summary.csv' order by class_id").fetchall()
    assert [(entry["name"], entry["iou"]) for entry in scored_job.summary["classes"]] == loaded
    # BigQuery takes letters, digits and underscores as names of columns, and no two that differ in case alone.
    names = [name for shard in shards for name in pandas.read_parquet(shard).columns]
    assert all(name.isidentifier() and name.isascii() for name in names)
    assert len({name.lower() for name in set(names)}) == len(set(names))
