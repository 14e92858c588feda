"""Attacks on images, as pure functions of NHWC arrays."""
