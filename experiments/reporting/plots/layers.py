"""The convolutions of a network, in the order that pictures show them."""

import jax

from experiments.models import Classifier, named_kernels


def layers_by_depth(
    classifier: Classifier, image_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The convolutions, in the order of their depth, and the shapes of their kernels.

    The first is the one that takes images; then by the size of the input, and layers of
    one size as the network names them.
    """
    uses = classifier.conv_uses(image_shape)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    kernels = {k: v.shape for k, v in named_kernels(shapes.params, uses).items()}

    def depth(name: str) -> tuple[bool, int]:
        [use] = uses[name]
        is_first = kernels[name][-2] == image_shape[-1]
        return not is_first, -use.input_shape[0]

    return {name: kernels[name] for name in sorted(uses, key=depth)}
