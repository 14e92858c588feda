"""The convolutions of a network, in the order of figures."""

import jax

from experiments.models import Classifier, named_kernels


def layers_by_depth(
    classifier: Classifier, image_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all convolution kernels, in the order of their depth.

    The first takes the images. The others are sorted by the size of their input; layers
    of the same size keep the network's order.
    """
    uses = classifier.conv_uses(image_shape)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0))
    kernels = {k: v.shape for k, v in named_kernels(shapes.params, uses).items()}

    def depth(name: str) -> tuple[bool, int]:
        [use] = uses[name]
        is_first = kernels[name][-2] == image_shape[-1]
        return not is_first, -use.input_shape[0]

    return {name: kernels[name] for name in sorted(uses, key=depth)}
