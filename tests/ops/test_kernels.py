"""How kernels are compiled and run: lazily, without a cache folder, on torch's threads, beside other threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recdistill import ops
from recdistill.ops.kernels import SMALL_WORK, use_torch_threads


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment or None
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_operations_imports_no_compiler() -> None:
    assert run("import sys, recdistill.ops; print('numba' in sys.modules)") == "False"


def test_everything_exported_exists_and_has_its_twin() -> None:
    assert sorted(ops.__all__) == ops.__all__
    assert all(hasattr(ops, name) for name in ops.__all__)
    kernels = {name.removesuffix("_reference") for name in ops.__all__ if name.endswith("_reference")}
    assert kernels <= set(ops.__all__)


def test_the_first_kernel_leaves_torchs_threads_as_they_are() -> None:
    """Numba's pool, when it starts, would set them to the number of cores."""
    code = """
import torch
torch.set_num_threads(1)
from recdistill import ops
ops.contains(torch.tensor([0, 1]), torch.tensor([3], dtype=torch.int32), torch.tensor([0]), torch.tensor([3]))
print(torch.get_num_threads())
"""
    assert run(code) == "1"


def test_kernels_run_without_a_folder_for_their_cache(tmp_path: Path) -> None:
    code = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []  # as where neither the package nor a home can be written
import torch
from recdistill import ops
print(ops.unique_inverse(torch.tensor([3, 1, 3]), 5)[0].tolist())
"""
    assert run(code) == "[1, 3]"


def test_kernels_get_torchs_threads_but_one_for_little_work() -> None:
    import numba

    torch.set_num_threads(1)
    assert use_torch_threads() == numba.get_num_threads() == 1
    torch.set_num_threads(64)  # more than the machine may have
    most = use_torch_threads()
    assert 1 <= most == numba.get_num_threads() <= 64
    assert use_torch_threads(SMALL_WORK - 1) == numba.get_num_threads() == 1
    assert use_torch_threads(SMALL_WORK) == most


@pytest.mark.parametrize("layer", ["default", "workqueue"])  # the second where OpenMP is not installed
def test_kernels_called_from_several_python_threads(layer: str) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
import torch
from recdistill import ops
torch.set_num_threads(2)
users, items, ids = torch.randn(200, 16), torch.randn(300, 16), torch.randint(300, (200, 80))
expected = ops.scores_at(users, items, torch.arange(200), ids)
with ThreadPoolExecutor(4) as pool:
    calls = [pool.submit(ops.scores_at, users, items, torch.arange(200), ids) for _ in range(60)]
    print(all(torch.equal(call.result(), expected) for call in calls))
"""
    assert run(code, **{**os.environ, "NUMBA_THREADING_LAYER": layer}) == "True"
