"""One-time set-up of a process that segments pictures; importing `pipeline` or `model` changes no library."""

import functools
import platform
import warnings

import cv2
import numpy as np
from PIL import Image, ImageFile

from pipeline.core import limits

LOGGER = "maskbeam"
"""The logger of what people should know while a job runs."""
LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"

_LARGEST_HEAP_BLOCK_BYTES = 31 << 20


@functools.cache
def prepare_process() -> None:
    """Sets the libraries of this process up for work on pictures; further calls do nothing.

    To be called by workers and commands before their first picture. It affects speed and what hostile files may cost,
    never results.
    """
    limits.check_directories()
    # Pillow's own bomb check has one fixed size; here it is the option --max_pixels, checked before decoding.
    Image.MAX_IMAGE_PIXELS = None
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Broken metadata makes Pillow warn for every file; errors are raised. The filter is set once for the process,
    # because warnings.catch_warnings around every picture would race between threads.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # One picture is one thread's work; OpenCV's own threads would take the cores of the other pictures.
    cv2.setNumThreads(1)
    # glibc returns blocks above a threshold to the kernel when they are freed, and raises the threshold to the largest
    # block that was freed, up to 32 MiB. A picture's planes taken from the kernel each time cost more in page faults
    # than all of their arithmetic (1.0 ms for 0.23 ms at 475×475 px). So one such block, whose pages are never touched,
    # is freed before the first picture; other allocators are not affected.
    np.empty(_LARGEST_HEAP_BLOCK_BYTES, np.uint8)


def library_builds() -> dict[str, str]:
    """What determines, besides the libraries' versions, which of their code paths run.

    Returns:
        `cpu`: the machine's architecture and the features of its CPU that OpenCV uses; `opencv_build`: OpenCV's full
        version and that of Intel's IPP in it.
    """
    # OpenCV marks features that it chooses at run time with *, and those that the CPU lacks with ?.
    features = [name.lstrip("*") for name in cv2.getCPUFeaturesLine().split() if not name.endswith("?")]
    ipp = cv2.ipp.getIppVersion() if cv2.ipp.useIPP() else "without IPP"
    return {
        "cpu": " ".join([platform.machine(), *features]),
        "opencv_build": f"{cv2.getVersionString()}, {ipp}",
    }
