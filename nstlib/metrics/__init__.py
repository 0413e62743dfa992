"""Numbers for pictures: how alike two are, pixel by pixel or to a network's eye, and how alike two sets are.

Papers A (MSE, PSNR, SSIM) and E (SSIM, LPIPS, FID) measure with these. A file per idea: ``pixel`` (what the
equations say), ``perceptual`` (LPIPS, the VGG's content and style as distances), ``distribution`` (FID, KID,
confidence intervals), ``protocol`` (what has to be said for two tables to be comparable); whole folders are
measured by ``nstlib.metrics.measure.measure``.
"""

from .distribution import FidBiasWarning, InceptionFeatures, Interval, bootstrap, fid, frechet_distance, kid
from .perceptual import Lpips, VggDistance
from .pixel import mse, psnr, ssim
from .protocol import Protocol

__all__ = [
    "FidBiasWarning", "InceptionFeatures", "Interval", "Lpips", "Protocol", "VggDistance", "bootstrap", "fid",
    "frechet_distance", "kid", "mse", "psnr", "ssim",
]  # fmt: skip
