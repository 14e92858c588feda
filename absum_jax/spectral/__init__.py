"""Spectra of convolutions: singular values, norms, and their clip.

A circular convolution is block-diagonal in the Fourier basis: one small matrix for each
frequency holds everything. `circulant` makes these blocks and takes them back to a
kernel, `hermitian` holds matrix functions made of products alone, the other modules are
what users call.
"""
