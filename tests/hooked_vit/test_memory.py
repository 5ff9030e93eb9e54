"""Freed memory is kept within the block, and returned at its end; page faults and resident size show both."""

import os
import resource
from pathlib import Path

import pytest
import torch

from hooked_vit import keep_freed_memory, memory

N_BYTES, PAGE = 4 * 12_000_000, 4096

glibc_only = pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")


def page_faults_of_a_large_tensor() -> int:
    """Pages that the kernel hands out while a tensor of 48 MB is made."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(N_BYTES // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@glibc_only
def test_freed_memory_is_reused_until_it_is_undone() -> None:
    n_pages = N_BYTES // PAGE
    with keep_freed_memory():
        # the second may still find too small a gap, for want of alignment
        assert min(page_faults_of_a_large_tensor() for _ in range(3)) < n_pages / 10
        kept = resident_bytes()
    assert resident_bytes() < kept - 0.9 * N_BYTES
    assert page_faults_of_a_large_tensor() > n_pages * 0.9


@glibc_only
def test_the_last_undo_counts_and_a_second_one_of_the_same_does_not() -> None:
    outer, inner = keep_freed_memory(), keep_freed_memory()
    inner.undo()
    inner.undo()
    assert min(page_faults_of_a_large_tensor() for _ in range(3)) < N_BYTES / PAGE / 10
    outer.undo()
    assert page_faults_of_a_large_tensor() > N_BYTES / PAGE * 0.9


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(f"unrecognized configuration name {name}")

    monkeypatch.setattr(os, "confstr", unknown)
    assert memory._glibc() is None
    with keep_freed_memory():
        assert torch.ones(3).sum() == 3
