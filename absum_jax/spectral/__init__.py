r"""Spectra of convolutions: singular values, norms, and projections onto a bound.

A circular convolution with kernel :math:`K` is block-diagonal in the Fourier basis
(eq. 5 of the paper). The block of frequency :math:`q` is the small matrix

.. math:: B_q = \sum_t K_t e^{2\pi i\, q \cdot t / n}

of input by output channels. The singular values of all blocks are those of the whole
operator, so its spectral norm is :math:`\max_q \|B_q\|_2`. A real kernel has conjugate
blocks at :math:`q` and :math:`-q`, so only one of them is computed.

To clip the singular values at :math:`c`, subtract from each block
:math:`B_q = U \Sigma V^H` its excess :math:`U (\Sigma - c)_+ V^H`. The inverse Fourier
transform takes the excess of all blocks back to a kernel, which is cut to the support
of the original (Sedghi et al., 2019, algorithm 1).

The path of a call, from the outside in:

1. `constraints`: :func:`spectral_norm_constraint` adds an update to the parameters and
   stacks the kernels of layers that have one geometry.
2. `clip`: each stack of kernels is checked against the bound, and clipped or rescaled.
   :func:`clip_conv_spectral_norm` does this for a single kernel.
3. `circulant`: a kernel and its geometry become blocks per frequency, in chunks of
   bounded memory; a function of blocks is applied to them, and the result becomes a
   kernel again.
4. `decomposition`: the excess of each block, by `"polar"`, `"eigh"` or `"svd"`.
5. `hermitian`: functions of matrices by real matrix products: bounds on norms, the
   polar factor, the matrix sign.

`spectrum` takes the same path for singular values, norms and frequency responses.
"""

from absum_jax.spectral.clip import clip_conv_spectral_norm
from absum_jax.spectral.constraints import (
    SpectralNormState,
    apply_spectral_norm_constraint,
    apply_spectral_normalization,
    spectral_norm_constraint,
    spectral_normalization,
)
from absum_jax.spectral.spectrum import (
    conv_frequency_response,
    conv_induced_inf_norm,
    conv_singular_values,
    conv_spectral_norm,
    conv_zero_padded_norm_bound,
)

__all__ = [
    "SpectralNormState",
    "apply_spectral_norm_constraint",
    "apply_spectral_normalization",
    "clip_conv_spectral_norm",
    "conv_frequency_response",
    "conv_induced_inf_norm",
    "conv_singular_values",
    "conv_spectral_norm",
    "conv_zero_padded_norm_bound",
    "spectral_norm_constraint",
    "spectral_normalization",
]
