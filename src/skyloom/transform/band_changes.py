"""Changes of the pixels of images with several bands: reddening by dust, seeing, noise."""

import math

import torch
from torch import Tensor
from torch.nn import functional

SEEING_EXPONENT = -0.2  # of the wavelength: Kolmogorov turbulence, Fried (1966), J. Opt. Soc. Am. 56, 1372
REFERENCE_NM = 754.6  # wavelength at which the blur of `blurred` is the one asked for: LSST i
REACH = 4.0  # sigmas at which a Gaussian is cut off: 6e-5 of its light lies beyond
MAD_TO_SIGMA = 1.482602218505602  # of Gaussian noise
NOISE_SAMPLES = 4096  # pixels of a band from which its noise is taken: known to 2 %


def reddened(image: Tensor, extinction: Tensor, ebv_mag: float) -> Tensor:
    """Dim each band as dust in front would.

    Parameters
    ----------
    image
        (C, H, W), proportional to flux.
    extinction
        (C,): A_b / E(B-V) in magnitudes.
    ebv_mag
        Colour excess E(B-V).

    Returns
    -------
    Tensor
        ``image * 10 ** (-0.4 * extinction * ebv_mag)``.
    """
    return image * torch.pow(10.0, -0.4 * ebv_mag * extinction.to(image)).view(-1, 1, 1)


def blurred(image: Tensor, wavelength_nm: Tensor, sigma_px: float) -> Tensor:
    """Blur each band by a Gaussian as wide as seeing makes it at its wavelength.

    Parameters
    ----------
    image
        (C, H, W).
    wavelength_nm
        (C,).
    sigma_px
        Sigma at `REFERENCE_NM`; that of a band goes with the power `SEEING_EXPONENT` of its wavelength.

    Returns
    -------
    Tensor
        (C, H, W); edges are mirrored, so that a constant image stays what it is.
    """
    sigmas = sigma_px * (wavelength_nm.to(image) / REFERENCE_NM) ** SEEING_EXPONENT
    reach = math.ceil(REACH * float(sigmas.max()))
    if reach == 0 or reach >= min(image.shape[-2:]):
        return image
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernels = torch.exp(-0.5 * (offsets / sigmas.clamp(min=1e-6).unsqueeze(1)) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).unsqueeze(1)  # (C, 1, 2 reach + 1)
    padded = functional.pad(image.unsqueeze(0), (reach, reach, reach, reach), mode="reflect")
    rows = functional.conv2d(padded, kernels.unsqueeze(3), groups=len(image))
    return functional.conv2d(rows, kernels.unsqueeze(2), groups=len(image)).squeeze(0)


def noisier(image: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Add white noise to each band.

    Parameters
    ----------
    image
        (C, H, W).
    fraction
        Sigma of the added noise in units of that which the band has: its median absolute deviation times 1.48, which
        sources hardly change.
    generator
        Where the random numbers come from.
    """
    flat = image.flatten(1)
    sample = flat[:, :: max(1, flat.shape[1] // NOISE_SAMPLES)]
    spread = (sample - sample.median(1, keepdim=True).values).abs().median(1).values * MAD_TO_SIGMA
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    return image + fraction * spread.view(-1, 1, 1) * noise
