"""What a file is, by its first bytes: the image formats that are read, and names for what is not one."""

from __future__ import annotations

HEAD = 512
"""Bytes from a file's beginning that suffice for `image_format`."""

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif")
)

_IMAGES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))

_OTHERS = (
    (b"%!PS", "EPS or PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS or PostScript"),
    (b"%PDF", "PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a Git LFS pointer (run `git lfs pull` to get the file itself)"),
)


def image_format(head: bytes) -> str | None:
    """Which image format the bytes begin.

    Args:
        head: The beginning of a file, `HEAD` bytes or more where there are as many.

    Returns:
        "JPEG", "PNG", "GIF", "TIFF", "BMP", "WebP", "AVIF" or "HEIC"; None for anything else.
    """
    for signature, name in _IMAGES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"  # two letters alone would take any text that begins with them
    if head[4:8] == b"ftyp":
        return _iso_media_format(head)
    return None


def _iso_media_format(head: bytes) -> str | None:
    """AVIF or HEIC by the brands of an ISO media file (ISO/IEC 14496-12, box `ftyp`)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if _HEIC_BRANDS.intersection(brands) else None


def describe(head: bytes) -> str:
    """Name what is not an image.

    Args:
        head: The beginning of a file for which `image_format` found nothing.

    Returns:
        A reason such as "HTML, not an image".
    """
    if not head:
        return "empty file"
    for signature, name in _OTHERS:
        if head.startswith(signature):
            return f"{name}, not an image that can be read"
    start = head[:HEAD]
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return "SVG, a drawing without pixels"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML, not an image"
    if not start.strip(b"\x00"):
        return "only zero bytes, not an image"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "text, not an image"
    return "unknown format: expected JPEG, PNG, GIF, BMP, TIFF, WebP or AVIF"
