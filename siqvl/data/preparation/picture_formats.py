"""What stands in place of a picture that is read, told by its first bytes and nothing else.

No decoder is asked: those of EPS, WMF or PDF run what is in the file, or other programs.
"""

from __future__ import annotations

import re

from siqvl.data.sources.formats.text_file import LFS_POINTER

#: (place, bytes there, name)
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"icns", "ICNS"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"DDS ", "DDS"),
    (0, b"BLP1", "BLP"),
    (0, b"BLP2", "BLP"),
    (0, b"FTEX", "FTEX"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"\x01\xda", "SGI"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"/* XPM */", "XPM"),
    (0, b"gimp xcf", "XCF"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"qoif", "QOI"),
    (0, b"FLIF", "FLIF"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\xb1\x68\xde\x3a", "DCX"),
    (0, b"DanM", "MSP"),
    (0, b"LinS", "MSP"),
    (0, b"Image type:", "IM"),
    (4, b"\x11\xaf", "FLI"),
    (4, b"\x12\xaf", "FLI"),
    (20, b"GIMP", "GBR"),
    (0, b"\x80\xe8\x00\x00", "PIXAR"),
    (2048, b"PCD_", "Photo CD"),
    (0, b"\x28\x00\x00\x00", "DIB"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "FlashPix or Office"),
    (0, b"BUFR", "BUFR"),
    (0, b"GRIB", "GRIB"),
    (0, b"\x89HDF", "HDF5"),
    (128, b"DICM", "DICOM"),
    (0, b"\x93NUMPY", "NumPy"),
    (8, b"AVI ", "AVI"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska"),
    (0, b"\x00\x00\x01\xb3", "MPEG"),
    (0, b"\x00\x00\x01\xba", "MPEG"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!", "RAR"),
    (257, b"ustar", "tar"),
)
PATTERNS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x00\x00\x01\x00[^\x00]\x00"), "ICO"),
    (re.compile(rb"\x00\x00\x02\x00[^\x00]\x00"), "CUR"),
    (re.compile(rb"\x00\x00[\x02\x0a]\x00{5}"), "TGA"),  # of before it had a mark
    (re.compile(rb"P[1-7]\s"), "PPM"),
    (re.compile(rb"P[Ff]\s"), "PFM"),
    (re.compile(rb"\x0a[\x00\x02\x03\x05]\x01[\x01\x02\x04\x08]"), "PCX"),
    (re.compile(rb"\s*#define\s+\w+_width\s"), "XBM"),
)
TGA = b"TRUEVISION-XFILE.\x00"  # ends a file
OURS = (b"avif", b"avis")  # brands of pictures that are read
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BASE64 = re.compile(rb"\s*(data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR)")
HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.DOTALL)
LOOKED_AT = 4096  # bytes, for what is text


def why_no_picture(data: bytes) -> tuple[str, str] | None:
    """(reason, detail) of what is in place of a picture; None where nothing is recognised.

    Args:
        data: a file that no decoder of a format that is read takes.
    """
    head = data[:LOOKED_AT].removeprefix(b"\xef\xbb\xbf")
    if head.startswith(LFS_POINTER):
        return "no image data", "a Git LFS pointer in place of the picture: `git lfs pull`"
    if HTML.match(head):
        return "no image data", "an HTML page in place of the picture: download it again"
    if BASE64.match(head):
        return "no image data", "base64 text in place of the picture: decode it"
    if name := foreign_format(data):
        return "unsupported image format", f"{name} is not read; store it as PNG or JPEG"
    if re.match(rb"\s*<\?xml\b", head):
        return "no image data", "XML in place of the picture: download it again"
    return None


def foreign_format(data: bytes) -> str | None:
    """The name of a format that is not read, by its mark; None where none is there."""
    if data[4:8] == b"ftyp":
        return _name_of_brands(data)
    if data.endswith(TGA):
        return "TGA"
    for place, mark, name in SIGNATURES:
        if data.startswith(mark, place):
            return name
    for pattern, name in PATTERNS:
        if pattern.match(data):
            return name
    if re.match(rb"\s*<(\?xml|!--|!doctype svg|svg)", data, re.I) and b"<svg" in data[:LOOKED_AT]:
        return "SVG"
    return None


def _name_of_brands(data: bytes) -> str | None:
    """HEIC and videos share a container with AVIF: its first box lists what it is."""
    brands = [data[place : place + 4] for place in range(8, min(data[3] or 64, 64), 4)]
    if any(brand in OURS for brand in brands):
        return None
    if brands and brands[0].strip() == b"qt":
        return "QuickTime"
    return "HEIC" if any(brand in HEIC for brand in brands) else "MP4"
