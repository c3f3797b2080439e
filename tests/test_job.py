"""Whole runs of the command on an archive whose masks are known."""

import numpy as np
from small_archive import Archive, Finished, expected_mask


def test_masks_are_those_of_an_independent_computation(archive: Archive, scored_job: Finished) -> None:
    assert scored_job.status == 0
    masks = scored_job.masks
    assert sorted(masks) == list(archive.image_ids)
    for image_id in archive.image_ids:
        expected, sure = expected_mask(archive.pixels(image_id))
        assert masks[image_id].shape == expected.shape
        assert np.array_equal(masks[image_id][sure], expected[sure]), image_id
        assert sure.mean() > 0.98
