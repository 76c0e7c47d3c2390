"""Files written whole or not at all: arrays as safetensors, tables as Parquet, the rest as JSON.

Each write goes to a temporary name beside the target, is flushed to the disk and renamed, so a killed process
leaves the old file or none. torch and polars are imported where used: reading a manifest needs neither.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from recdistill.errors import ArtifactError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY = ".tmp-"


def size_text(num_bytes: int) -> str:
    """A number of bytes as people read it: ``1.5 GB``."""
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{num_bytes} bytes"
        size /= 1000
    return f"{size:.3g} TB"


def storage_error(error: Exception, path: Path, needed: int | None = None) -> ArtifactError | None:
    """The one-line error for a failed write, or None where ``error`` does not come from the system.

    Args:
        error: what was raised: an OSError, or another library's error that carries the system's number.
        path: what was being written.
        needed: bytes that the write takes, where known.
    """
    number = _system_number(error)
    if number is None:
        return None
    return full_error(error, path, needed) or ArtifactError(
        f"cannot write {path}: {os.strerror(number)}", "check the path and its permissions"
    )


def full_error(error: Exception, path: Path, needed: int | None = None) -> ArtifactError | None:
    """The one-line error where ``error`` says that the disk, the quota or the file-size limit is used up."""
    if _system_number(error) not in _FULL:
        return None
    needs = f"needs {size_text(needed)}, " if needed is not None else ""
    free = size_text(_free_bytes(path))
    return ArtifactError(
        f"no space left for {path}: {needs}{free} free", "free some space or choose another --out"
    )


def _system_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # polars and safetensors report a failed write in their own types; the system's number is in the text.
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match.group(1)) if match else None


def _free_bytes(path: Path) -> int:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return 0


@contextmanager
def atomic_file(path: Path | str, needed: int | None = None) -> Generator[IO[bytes]]:
    """Write a file whole or not at all.

    Args:
        path: the file; its folder must exist.
        needed: bytes that will be written, where known, for the message when the disk is full.

    Yields:
        A binary file under a temporary name, renamed to ``path`` at the end of the block.

    Raises:
        ArtifactError: no space left, or the folder is missing or read-only; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}{_TEMPORARY}{os.getpid()}")
    try:
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except Exception as error:
        translated = storage_error(error, path, needed)
        if translated is None:
            raise
        raise translated from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left below ``folder``."""
    for path in folder.rglob(f".*{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON file atomically.

    Args:
        path: the file to write.
        value: what ``json.dumps`` takes; numbers must be finite (use None for what has no value).

    Raises:
        ArtifactError: the file cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    content = text.encode()
    with atomic_file(path, len(content)) as file:
        file.write(content)


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: the file is missing, unreadable or damaged.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: no valid JSON ({one_line(error)})", _REMAKE) from error


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
                f"{path} has no column {', '.join(missing)}; it has {', '.join(present)}", _REMAKE
            )
        return (frame if wanted is None else frame.select(wanted)).collect()
    except OSError as error:
        raise _unreadable(path, error) from error
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"{path} is damaged: no valid Parquet ({one_line(error)})", _REMAKE) from error


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
        # Not safetensors.torch.save_file: it copies each tensor to bytes, which doubles the memory of large tables.
        file.write(header)
        for name in order:
            flat = arrays[name].detach().contiguous().cpu().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def _header(arrays: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> tuple[bytes, list[str]]:
    # Format: header length in 8 bytes, little-endian; JSON header, padded to 8; the raw values. Wide types come
    # first, so that each tensor is aligned when the file is mapped.
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
        raise _unreadable(path, error) from error
    except SafetensorError as error:
        size = size_text(Path(path).stat().st_size)
        raise ArtifactError(
            f"{path} is damaged or truncated: {one_line(error)} ({size} found)", _REMAKE
        ) from error


_REMAKE = "make it again with --force"


def _unreadable(path: Path | str, error: OSError) -> ArtifactError:
    if not Path(path).exists():
        return ArtifactError(f"{path} does not exist", _REMAKE)
    return ArtifactError(f"cannot read {path}: {error.strerror or one_line(error)}", "check its permissions")


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split())
