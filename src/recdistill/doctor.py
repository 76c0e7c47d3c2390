"""What this installation is made of: versions, cores, GPU, extras."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

CORE = ("torch", "numba", "numpy", "scipy", "pyarrow", "polars", "pydantic", "safetensors", "rich", "typer")
EXTRAS = {"plots": ("matplotlib",), "tune": ("optuna",), "ot": ("POT",)}


def examine() -> dict[str, Any]:
    """Versions of the package, Python and the core libraries, the machine, and the extras that are present."""
    import torch

    import recdistill

    cuda = torch.cuda.is_available()
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return {
        "recdistill": recdistill.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(amx),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda,
        "versions": {name: _version(name) for name in CORE},
        "extras": {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
    }


def missing(found: dict[str, Any]) -> list[str]:
    """One line for each thing that is not there, with what to do."""
    lines = [
        f"{name} is not installed: pip install {name}" for name, v in found["versions"].items() if v is None
    ]
    for extra, names in found["extras"].items():
        if any(version is None for version in names.values()):
            lines.append(f"extra '{extra}' is not installed: pip install 'recdistill[{extra}]'")
    return lines


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
