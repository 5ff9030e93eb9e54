"""Random numbers that depend only on (seed, item, purpose), not on the order, batch or machine.

A counter-based generator: a number is a hash of where it is used, computed in wrapping integer arithmetic.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt64

__all__ = ["GAUSSIAN_STD", "SceneDraws", "gaussian_noise"]

_GOLDEN = 0x9E3779B97F4A7C15
GAUSSIAN_STD = 147.80
"""Standard deviation of the sum of four uniform bytes: sqrt(4 (256² - 1) / 12)."""


def _mix64(x: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class SceneDraws:
    """The random numbers of some items of the dataset with this seed.

    A `purpose` names an independent stream of numbers: drawing more of one never changes another.

    >>> draws = SceneDraws(seed=0, indices=np.array([7, 8]))
    >>> bool((draws.uniform("scale", 2)[1] == SceneDraws(0, np.array([8])).uniform("scale", 2)[0]).all())
    True
    """

    seed: int
    indices: Int64[np.ndarray, "batch"]

    def keys(self, purpose: str) -> UInt64[np.ndarray, "batch"]:
        """One 64-bit number per item."""
        purpose_key = zlib.crc32(purpose.encode()) * _GOLDEN
        stream = np.array([(self.seed + purpose_key) % 2**64], dtype=np.uint64)
        return _mix64(_mix64(stream) + self.indices.astype(np.uint64) * np.uint64(_GOLDEN))

    def uniform(
        self, purpose: str, count: int, low: float = 0.0, high: float = 1.0
    ) -> Float64[np.ndarray, "batch count"]:
        """`count` numbers per item, uniform in [low, high)."""
        counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        bits = _mix64(self.keys(purpose)[:, None] + counters)
        return low + (high - low) * ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def gaussian_noise(keys: UInt64[np.ndarray, "batch"], count: int) -> Float32[np.ndarray, "batch count"]:
    """`count` nearly Gaussian numbers per key: whole, from -510 to 510, of mean 0 and deviation `GAUSSIAN_STD`.

    Each is the sum of the four bytes of a 32-bit hash of (key, position).

    >>> noise = gaussian_noise(np.array([5, 6], dtype=np.uint64), 10_000) / GAUSSIAN_STD
    >>> bool(abs(noise.mean()) < 0.02), bool(abs(noise.std() - 1) < 0.02)
    (True, True)
    """
    counters = np.arange(count, dtype=np.uint32) * np.uint32(_GOLDEN >> 32)
    bits = keys.astype(np.uint32)[:, None] + counters
    # Wellons' 32-bit finaliser; in place, because the memory traffic is most of the cost
    shifted = bits >> np.uint32(16)
    bits ^= shifted
    bits *= np.uint32(0x7FEB352D)
    np.right_shift(bits, np.uint32(15), out=shifted)
    bits ^= shifted
    bits *= np.uint32(0x846CA68B)
    np.right_shift(bits, np.uint32(16), out=shifted)
    bits ^= shifted
    # two bytes in each half of the word, then the two halves
    np.right_shift(bits, np.uint32(8), out=shifted)
    shifted &= np.uint32(0x00FF00FF)
    bits &= np.uint32(0x00FF00FF)
    bits += shifted
    np.right_shift(bits, np.uint32(16), out=shifted)
    bits &= np.uint32(0xFFFF)
    bits += shifted
    noise = bits.astype(np.float32)
    noise -= np.float32(510)
    return noise
