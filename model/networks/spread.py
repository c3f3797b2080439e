"""A first convolution that was trained on pictures of some channels as one of pictures with others."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def spread_kernel(kernel: FloatArray, channels: int) -> FloatArray:
    """Spreads a kernel over another number of input channels.

    To as many or more channels: channel c gets the kernel of channel c modulo the old number, divided by the number of
    channels that get it. To fewer: each gets the sum over the old channels, divided by the new number. Either way the
    sum over the channels stays, so a picture that has the same values in all its channels has the same activations.

    Args:
        kernel: (height, width, old channels, out) float32.
        channels: at least 1.

    Returns:
        (height, width, channels, out) float32.
    """
    old = kernel.shape[2]
    if channels < old:
        return np.repeat(kernel.sum(axis=2, keepdims=True) / np.float32(channels), channels, axis=2)
    sources = np.arange(channels) % old
    shared = np.bincount(sources)[sources].astype(np.float32)
    return np.asarray(kernel[:, :, sources] / shared[:, None], np.float32)
