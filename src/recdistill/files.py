"""JSON, Parquet tables and safetensors arrays, each file written whole or not at all.

torch and polars are imported where they are used: what only reads manifests starts without them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.atomic import REMAKE, atomic_file, one_line, size_text, unreadable
from recdistill.errors import ArtifactError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

__all__ = [
    "array_shapes",
    "load_arrays",
    "read_json",
    "read_table",
    "save_arrays",
    "size_text",
    "write_json",
    "write_table",
]


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON file atomically.

    Args:
        path: the file to write.
        value: what ``json.dumps`` takes; NaN and infinities, which JSON lacks, become null.

    Raises:
        ArtifactError: the file cannot be written.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    content = f"{text}\n".encode(errors="surrogatepass")  # a path need not be UTF-8
    with atomic_file(path, len(content)) as file:
        file.write(content)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: the file is missing, unreadable or damaged.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: no valid JSON ({one_line(error)})", REMAKE) from error


def write_table(path: Path | str, table: pl.DataFrame) -> None:
    """Write a table as zstd Parquet, atomically.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with atomic_file(path, int(table.estimated_size())) as file:
        table.write_parquet(file, compression="zstd")


def read_table(path: Path | str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a Parquet table.

    Args:
        path: one Parquet file.
        columns: the columns to read, in this order; default: all.

    Raises:
        ArtifactError: the file is missing or damaged, or lacks one of ``columns``.
    """
    import polars as pl

    wanted = None if columns is None else list(columns)
    try:
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        present = frame.collect_schema().names()
        missing = [name for name in wanted or [] if name not in present]
        if missing:
            raise ArtifactError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(present)}", REMAKE
            )
        return (frame if wanted is None else frame.select(wanted)).collect()
    except OSError as error:
        raise unreadable(path, error) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        # PanicException: some broken pages make polars' core panic, which is no Exception.
        raise ArtifactError(f"{path} is damaged: no valid Parquet ({one_line(error)})", REMAKE) from error


def save_arrays(
    path: Path | str, arrays: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to one safetensors file, atomically and without a copy of those that lie on the CPU.

    Args:
        path: the file to write.
        arrays: dense tensors of any shape, on any device.
        metadata: short texts kept in the file's header.

    Raises:
        ArtifactError: the file cannot be written.
        TypeError: a tensor has a layout or dtype that safetensors cannot hold.
    """
    import torch

    header, order = _header(arrays, metadata)
    needed = len(header) + sum(arrays[name].nbytes for name in order)
    with atomic_file(path, needed) as file:
        # Not safetensors.torch.save_file: it copies each tensor to bytes, twice the memory for large tables.
        file.write(header)
        for name in order:
            flat = arrays[name].detach().contiguous().cpu().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def _header(arrays: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> tuple[bytes, list[str]]:
    # Format: header length in 8 bytes, little-endian; JSON header, padded to 8; the raw values. Wide types
    # come first, so that each tensor is aligned when the file is mapped.
    import torch

    codes = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    order = sorted(arrays, key=lambda name: (-arrays[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name in order:
        array = arrays[name]
        if array.dtype not in codes or array.layout != torch.strided:
            raise TypeError(f"array '{name}' is {array.dtype}, {array.layout}: expected a dense tensor")
        end = start + array.nbytes
        entries[name] = {
            "dtype": codes[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


def load_arrays(path: Path | str) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file; they are mapped from the disk, not copied.

    Returns:
        CPU tensors by name. Writing into one changes memory only, never the file.

    Raises:
        ArtifactError: the file is missing, truncated or damaged.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def array_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, from its header alone.

    Raises:
        ArtifactError: the file is missing, truncated or damaged.
    """
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path | str) -> Generator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except SafetensorError as error:
        size = size_text(Path(path).stat().st_size)
        raise ArtifactError(
            f"{path} is damaged or truncated: {one_line(error)} ({size} found)", REMAKE
        ) from error
