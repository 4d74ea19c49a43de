"""Small image files in every layout that the reader must take, and some that it must refuse."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from astropy.io import fits
from numpy.typing import NDArray


def radio_pixels(shape: tuple[int, int] = (60, 80), seed: int = 0, blank_edge: int = 5) -> NDArray[np.float64]:
    """Gaussian noise of 83 uJy/beam with one bright pixel in the middle and a NaN edge."""
    pixels = np.random.default_rng(seed).normal(0.0, 83e-6, shape)
    pixels[shape[0] // 2, shape[1] // 2] = 0.01
    if blank_edge:
        inside = np.zeros(shape, bool)
        inside[blank_edge:-blank_edge, blank_edge:-blank_edge] = True
        pixels[~inside] = np.nan
    return pixels


def radio_header(shape: tuple[int, int], axes: int = 2, *, wcs: bool = True) -> fits.Header:
    """Header with the cards of a LoTSS mosaic: SIN projection, 1.5" pixels, 6" beam, BUNIT in capitals."""
    header = fits.Header()
    header["BUNIT"] = "JY/BEAM "
    header["BMAJ"], header["BMIN"], header["BPA"] = 6 / 3600, 6 / 3600, 90.0
    if not wcs:
        return header
    values = [("RA---SIN", 123.0, -1.5 / 3600, shape[1] / 2 + 0.5), ("DEC--SIN", 45.0, 1.5 / 3600, shape[0] / 2 + 0.5)]
    values += [("FREQ", 143.65e6, 1e6, 1.0), ("STOKES", 1.0, 1.0, 1.0)][: axes - 2]
    for axis, (ctype, crval, cdelt, crpix) in enumerate(values, start=1):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"] = ctype, crval
        header[f"CDELT{axis}"], header[f"CRPIX{axis}"] = cdelt, crpix
    return header


def write_fits(
    path: Path, pixels: NDArray[Any] | None = None, *, dtype: str = ">f8", axes: int = 2, wcs: bool = True, **cards: Any
) -> NDArray[Any]:
    """Write a primary image with `axes` axes (those beyond two have length 1) and return its 2-D pixels.

    A path that ends in ``.gz`` is compressed as a whole. `cards` are added to the header.
    """
    pixels = radio_pixels() if pixels is None else pixels
    header = radio_header(pixels.shape, axes, wcs=wcs)
    header.update(cards)
    data = pixels.astype(dtype).reshape((1,) * (axes - 2) + pixels.shape)
    fits.PrimaryHDU(data, header).writeto(path)
    return pixels


def write_scaled(
    path: Path, raw: NDArray[Any], *, scale: float = 1.0, zero: float = 0.0, blank: int | None = None
) -> None:
    """Write integers as they are, with BSCALE, BZERO and BLANK cards; astropy would scale them, so bytes are joined."""
    header = fits.PrimaryHDU(raw).header
    header["BSCALE"], header["BZERO"] = scale, zero
    if blank is not None:
        header["BLANK"] = blank
    data = raw.astype(raw.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(header.tostring().encode() + data + b"\0" * (-len(data) % 2880))


def write_compressed(
    path: Path,
    pixels: NDArray[Any],
    *,
    method: str = "GZIP_2",
    tile: tuple[int, ...] | None = None,
    axes: int = 2,
    **cards: Any,
) -> None:
    """Write an empty primary HDU and a tile-compressed image, without loss; `cards` are added to its header."""
    data = pixels.reshape((1,) * (axes - 2) + pixels.shape)
    header = radio_header(pixels.shape, axes)
    hdu = fits.CompImageHDU(data, header, compression_type=method, tile_shape=tile, quantize_level=0.0)
    hdu.header.update(cards)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


def write_zarr(path: Path, pixels: NDArray[Any], *, chunks: tuple[int, ...], header: fits.Header | None = None) -> None:
    """Write one Zarr array; the header, if any, goes into the attribute ``fits_header``."""
    array = zarr.create_array(path, shape=pixels.shape, dtype=pixels.dtype, chunks=chunks)
    array[...] = pixels
    if header is not None:
        array.attrs["fits_header"] = header.tostring(sep="\n")


def cut_file(path: Path, keep_bytes: int) -> None:
    """Cut a file short, as a broken download does."""
    path.write_bytes(path.read_bytes()[:keep_bytes])


def gzip_file(path: Path) -> Path:
    """Write ``<path>.gz`` beside the file."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    return packed
