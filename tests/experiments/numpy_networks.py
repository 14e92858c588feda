"""The forward passes of the networks in NumPy, float64."""

import numpy as np


def _arrays(*params):
    return (np.asarray(p[...], np.float64) for p in params)


def _windows(x, size, stride, padding):
    margin = (size // 2,) * 2
    padded = np.pad(x, ((0, 0), margin, margin, (0, 0)), constant_values=padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    return windows[:, ::stride, ::stride]


def _conv(layer, x, stride=1):
    (kernel,) = _arrays(layer.kernel)
    windows = _windows(x, kernel.shape[0], stride, 0)
    y = np.tensordot(windows, kernel, ((4, 5, 3), (0, 1, 2)))
    return y if layer.bias is None else y + np.asarray(layer.bias[...])


def _max_pool(x, stride):
    return _windows(x, 3, stride, -np.inf).max(axis=(4, 5))


def _average_pool(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def _logits(layer, x):
    kernel, bias = _arrays(layer.kernel, layer.bias)
    return x.mean(axis=(1, 2)) @ kernel + bias


def _relu(x):
    return np.maximum(x, 0)


def _normalized(layer, x, mean, var):
    scale, bias = _arrays(layer.scale, layer.bias)
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def by_statistics(layer, x):
    """Batch normalization in evaluation."""
    return _normalized(layer, x, *_arrays(layer.mean, layer.var))


class ByBatch:
    """Batch normalization in training; `moved` are the statistics by layer's id.

    In groups of a batch, each by itself, the statistics move to the mean of theirs.
    """

    def __init__(self, groups=1):
        self.groups = groups
        self.moved = {}

    def assert_moved(self, layers, trained):
        """Checks the statistics of trained layers against those of the untrained."""
        for before, after in zip(layers, trained, strict=True):
            mean, var = self.moved[id(before)]
            np.testing.assert_allclose(after.mean[...], mean, atol=1e-4)
            np.testing.assert_allclose(after.var[...], var, rtol=1e-3, atol=1e-6)

    def __call__(self, layer, x):
        parts = np.split(x, self.groups)
        found = [
            (part.mean(axis=(0, 1, 2)), part.var(axis=(0, 1, 2))) for part in parts
        ]
        old = _arrays(layer.mean, layer.var)
        # PyTorch's momentum of 0.1.
        self.moved[id(layer)] = [
            0.9 * a + 0.1 * b for a, b in zip(old, np.mean(found, axis=0), strict=True)
        ]
        return np.concatenate(
            [
                _normalized(layer, part, *statistics)
                for part, statistics in zip(parts, found, strict=True)
            ]
        )


def _residual(model, x, normalize):
    for i, block in enumerate(model.blocks):
        stride = 2 if i in (2, 4, 6) else 1
        out = _relu(normalize(block.norm1, _conv(block.conv1, x, stride)))
        out = normalize(block.norm2, _conv(block.conv2, out))
        if stride == 2:
            x = normalize(block.shortcut_norm, _conv(block.shortcut, x, stride))
        x = _relu(out + x)
    return _logits(model.dense, x)


def resnet18(model, x, normalize):
    x = _relu(normalize(model.stem_norm, _conv(model.stem, x)))
    return _residual(model, x, normalize)


def imagenet_resnet18(model, x, normalize):
    x = _relu(normalize(model.stem_norm, _conv(model.stem, x, 2)))
    return _residual(model, _max_pool(x, 2), normalize)


def googlenet(model, x, normalize):
    def units(x, *layers):
        for layer in layers:
            x = _relu(normalize(layer.norm, _conv(layer.conv, x)))
        return x

    x = units(x, model.stem)
    for i, inceptions in enumerate(model.stages):
        x = _max_pool(x, 2) if i > 0 else x
        for its in inceptions:
            branches = (
                units(x, its.one),
                units(x, its.reduce3, its.three),
                units(x, its.reduce5, its.five1, its.five2),
                units(_max_pool(x, 1), its.pooled),
            )
            x = np.concatenate(branches, axis=-1)
    return _logits(model.dense, x)


def densenet121(model, x, normalize):
    def units(x, *layers):
        for layer in layers:
            x = _conv(layer.conv, _relu(normalize(layer.norm, x)))
        return x

    x = _conv(model.stem, x)
    for i, block in enumerate(model.blocks):
        x = _average_pool(units(x, model.transitions[i - 1])) if i > 0 else x
        for layer in block:
            x = np.concatenate([units(x, layer.reduce, layer.grow), x], axis=-1)
    return _logits(model.dense, _relu(normalize(model.norm, x)))
