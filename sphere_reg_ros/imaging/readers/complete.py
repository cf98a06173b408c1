"""Whether a volume file holds all that its header promises: SimpleITK fills a truncated NIfTI in silently, and reports a
truncated MetaImage on the terminal, with another reason than the true one."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

from sphere_reg_ros.imaging.errors import ImageFileError

CHUNK_BYTES = 1 << 20
NIFTI_HEADER_BYTES = 348
META_HEADER_BYTES = 1 << 16
"""Longer than any header; what follows it are voxels."""
META_TYPE_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "FLOAT": 4, "DOUBLE": 8, "LONG_LONG": 8}


def check_complete(path: Path, voxels: int) -> None:
    """Refuse a NIfTI or MetaImage file that ends early; the other formats notice it themselves.

    Args:
        voxels: their number according to the header.

    Raises:
        ImageFileError: with both lengths.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        _check_nifti(path, voxels)
    elif name.endswith((".mha", ".mhd")):
        _check_meta_image(path, voxels)


def _check_nifti(path: Path, voxels: int) -> None:
    try:
        # Decompressing to the end also checks the compressed data's own checksum.
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            header = stream.read(NIFTI_HEADER_BYTES)
            length = len(header) + sum(len(chunk) for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise ImageFileError(f"{path}: is truncated or damaged ({error}); copy it again") from error
    # The header begins with its own length, which shows the byte order; the bits of a voxel are its field bitpix.
    order = "<" if header[0] == NIFTI_HEADER_BYTES % 256 else ">"
    (bits,) = struct.unpack_from(f"{order}h", header, 72)
    _compare(path, length, voxels * bits // 8 + NIFTI_HEADER_BYTES)


def _check_meta_image(path: Path, voxels: int) -> None:
    content = path.open("rb").read(META_HEADER_BYTES)
    fields: dict[str, str] = {}
    offset = 0
    for line in content.split(b"\n"):
        offset += len(line) + 1
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    size = META_TYPE_BYTES.get(kind.removeprefix("U"), 1)
    promised = voxels * size * int(fields.get("ElementNumberOfChannels", "1"))
    if fields.get("CompressedData", "False").lower() == "true":
        promised = int(fields.get("CompressedDataSize", "0"))
    where = fields.get("ElementDataFile", "")
    if where.upper() == "LOCAL":
        _compare(path, path.stat().st_size, offset + promised)
    elif where and not where.upper().startswith("LIST") and "%" not in where:
        data = path.parent / where
        if not data.is_file():
            raise ImageFileError(f"{path}: its voxels are in {data}, which is not there; copy both files")
        _compare(data, data.stat().st_size, promised)


def _compare(path: Path, length: int, promised: int) -> None:
    if length < promised:
        raise ImageFileError(f"{path}: is truncated: {length} bytes, its header promises {promised}; copy it again")
