"""Puts the tiny network in place of the small CNN in commands of other processes."""

import os

if "ABSUM_JAX_WATCHED" in os.environ:
    from tiny_network import in_place_of_small_cnn

    in_place_of_small_cnn().__enter__()
