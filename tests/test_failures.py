"""Failures in blocks: what is packed comes back, in order, and a piece at a time."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.records import Failure
from pipeline.output.failure_blocks import FAILURES_A_BLOCK, pack_failures, unpack_failures

# Names on disk may hold bytes that are no UTF-8; Python has surrogates for them.
texts = st.text(st.characters() | st.sampled_from("\n\r\u2028\udcff"), max_size=12)
failures = st.builds(Failure, texts, texts, texts, texts, texts, texts)


def _fields(failure: Failure) -> tuple[str, ...]:
    return tuple(getattr(failure, name) for name in Failure.__dataclass_fields__)


@given(st.lists(st.lists(failures, max_size=8), max_size=5))
def test_blocks_come_back_as_one_sorted_row(blocks: list[list[Failure]]) -> None:
    everything = [failure for block in blocks for failure in block]
    found = list(unpack_failures(map(pack_failures, blocks)))
    assert found == sorted(everything, key=_fields)
    assert found == list(unpack_failures([pack_failures(everything)]))


def _failure(number: int) -> Failure:
    name = f"folder/picture_{number:07d}.jpg"
    return Failure(name, f"/archives/of/the/north/empty.tar!{name}", "locate", "Empty", "the member is empty")


def test_merging_holds_a_small_part_of_all_failures() -> None:
    count = 10 * FAILURES_A_BLOCK
    blocks = [pack_failures(map(_failure, range(first, count, 10))) for first in range(10)]
    assert sum(map(len, blocks)) < 40 * count
    tracemalloc.start()
    merged = sum(1 for _ in unpack_failures(blocks))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert merged == count
    assert peak_bytes < 50 * count
