"""Weights from PyTorch and back, beside PyTorch's own logits."""

import doctest
import functools
import io
import json
import pickle
import zipfile

import jax
import numpy as np
import pytest
from networks import filled
from safetensors.numpy import load_file, save_file

import experiments
from benchmarks import pytorch_logits
from experiments.jobs.errors import UsageError
from experiments.models import build, pytorch, pytorch_files, variables_of
from experiments.models.googlenet import GoogLeNet
from experiments.models.resnet import ResNet18
from experiments.models.small_cnn import SmallCNN

# From `python -m benchmarks.pytorch_logits`.
PYTORCH = json.loads(pytorch_logits.PATH.read_text())
NETWORKS = {
    "pytorch-examples": "small_cnn",
    "pytorch-cifar": "resnet18",
    "torchvision": "resnet18_224",
}


def tensors_of(layout):
    return pytorch_logits.weights(PYTORCH[layout]["shapes"])


def unnormalized(layout):
    channels = pytorch_logits.SHAPES[layout][-1]
    return {"mean": [0] * channels, "std": [1] * channels}


@pytest.fixture(params=list(NETWORKS))
def layout(request):
    return request.param


@pytest.fixture
def path(layout, tmp_path):
    save_file(tensors_of(layout), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def is_equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(*leaves)
        for leaves in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_logits_are_those_of_pytorch(layout, path):
    x = pytorch_logits.images(pytorch_logits.SHAPES[layout])
    model = experiments.load_pytorch(path, NETWORKS[layout], **unnormalized(layout))
    expected = np.array(PYTORCH[layout]["logits"])
    # They tell images and classes apart.
    assert min(np.ptp(expected, axis=0).min(), np.ptp(expected, axis=1).min()) > 0.4
    found = jax.jit(model)(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(
    ("network", "layout", "create"),
    [
        ("small_cnn", "pytorch-examples", SmallCNN),
        ("resnet18_eighth", "torchvision", functools.partial(ResNet18, divisor=8)),
    ],
)
def test_normalization_is_inside(network, layout, create, tmp_path):
    path = tmp_path / "net.safetensors"
    experiments.save_pytorch(path, variables_of(filled(create)), layout)
    x = pytorch_logits.images(pytorch_logits.SHAPES[layout])
    mean, std = np.array([[0.3, 0.2, 0.5], [0.4, 0.1, 0.2]])[:, : x.shape[-1]]
    outside = experiments.load_pytorch(path, network, **unnormalized(layout))
    inside = experiments.load_pytorch(path, network, mean=mean, std=std)
    expected = jax.jit(outside)(np.float32((x - mean) / std))
    found = jax.jit(inside)(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_there_and_back(layout, path, tmp_path):
    tensors = tensors_of(layout)
    variables = pytorch.from_pytorch(tensors, NETWORKS[layout])
    experiments.save_pytorch(tmp_path / "again.safetensors", variables, layout)
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys()
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
    assert is_equal(pytorch.from_pytorch(again, NETWORKS[layout]), variables)
    classes = len(PYTORCH[layout]["logits"][0])
    channels = pytorch_logits.SHAPES[layout][-1]
    network = build(NETWORKS[layout], (0.0,) * channels, (1.0,) * channels, classes)
    abstract = jax.eval_shape(network.init, jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == shapes


@pytest.mark.parametrize("names", ["pytorch-cifar", "torchvision"])
@pytest.mark.parametrize("divisor", [1, 8])
def test_either_names_of_any_width(names, divisor):
    variables = variables_of(filled(ResNet18, divisor=divisor, classes=3))
    tensors = pytorch.to_pytorch(variables, names)
    network = "resnet18" if divisor == 1 else "resnet18_eighth"
    assert is_equal(pytorch.from_pytorch(tensors, network), variables)


def test_names_of_ours():
    tensors = pytorch.to_pytorch(variables_of(filled(GoogLeNet)))
    assert tensors["stages.1.0.five2.norm.running_var"].shape == (48,)
    assert tensors["stem.conv.weight"].shape == (192, 3, 3, 3)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_wrapped_networks_of_any_precision(prefix):
    tensors = tensors_of("pytorch-examples")
    expected = pytorch.from_pytorch(tensors, "small_cnn")
    wrapped = {f"{prefix}{name}": t.astype(float) for name, t in tensors.items()}
    wrapped[f"{prefix}bn1.num_batches_tracked"] = np.array(3)
    assert is_equal(pytorch.from_pytorch(wrapped, "small_cnn"), expected)


def test_bfloat16_is_read(tmp_path):
    rounded = {
        name: np.asarray(jax.numpy.asarray(t, "bfloat16"))
        for name, t in tensors_of("pytorch-examples").items()
    }
    save_file(rounded, tmp_path / "half.safetensors")
    model = experiments.load_pytorch(
        tmp_path / "half.safetensors", "small_cnn", mean=[0], std=[1]
    )
    kernel = model.args[0].params["dense2"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, rounded["fc2.weight"].astype("f").T)


def test_other_weights_compile_nothing(tmp_path):
    tensors, path = tensors_of("pytorch-examples"), tmp_path / "net.safetensors"

    def loaded():
        save_file(tensors, path)
        return experiments.load_pytorch(path, "small_cnn", mean=[0.1], std=[0.3])

    first = loaded()
    tensors["fc2.bias"][3] += 100
    second = loaded()
    apply = jax.jit(lambda model, x: model(x).argmax(-1))
    x = pytorch_logits.images((28, 28, 1))
    assert 3 not in apply(first, x)
    assert set(apply(second, x).tolist()) == {3}
    assert apply._cache_size() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("fc1.bias"),
            "must be those of small_cnn: missing fc1.bias, unexpected none",
        ),
        (
            lambda t: t.update({"conv1_bn.weight": np.ones(10, np.float32)}),
            "missing none, unexpected conv1_bn.weight",
        ),
        (
            lambda t: [t.pop(n) for n in list(t) if "conv" in n or "fc1" in n],
            "missing conv1.bias, conv1.weight, conv2.bias, conv2.weight and 2 more",
        ),
        (
            lambda t: t.update({"fc1.weight": t["fc1.weight"].T}),
            r"`tensors\['fc1.weight'\]` must be floating-point of shape \(50, 320\), "
            r"got float32 \(320, 50\)",
        ),
        (
            lambda t: t.update({"fc2.bias": np.zeros(3, np.float32)}),
            r"`tensors\['fc2.weight'\]` must be .*of shape \(3, 50\), got",
        ),
        (
            lambda t: t.update({"conv1.bias": np.zeros(10, int)}),
            r"`tensors\['conv1.bias'\]` must be floating-point .*got int64 \(10,\)",
        ),
    ],
)
def test_wrong_tensors(change, message):
    tensors = tensors_of("pytorch-examples")
    change(tensors)
    with pytest.raises(ValueError, match=message):
        pytorch.from_pytorch(tensors, "small_cnn")


class OfNoArray:
    """A tensor as PyTorch has in bfloat16."""

    def __array__(self, *_, **__):  # noqa: D105
        raise TypeError("Got unsupported ScalarType BFloat16")


def test_what_is_no_array():
    tensors = tensors_of("pytorch-examples") | {"fc2.bias": OfNoArray()}
    with pytest.raises(ValueError, match=r"`tensors\['fc2.bias'\]` must .* BFloat16"):
        pytorch.from_pytorch(tensors, "small_cnn")
    with pytest.raises(ValueError, match="must be a `state_dict`, got SmallCNN"):
        pytorch.from_pytorch(filled(SmallCNN), "small_cnn")


def test_wrong_networks():
    tensors = tensors_of("pytorch-examples")
    for network in ("googlenet", "resnet18_tenth", "resnet"):
        with pytest.raises(ValueError, match=r"`network` must be one of \['small_cnn'"):
            pytorch.from_pytorch(tensors, network)
    with pytest.raises(ValueError, match=r"missing bn1.bias, .*unexpected conv1.bias"):
        pytorch.from_pytorch(tensors, "resnet18")
    with pytest.raises(
        ValueError, match=r"conv1.weight.* \(64, 3, 3, 3\), got float32"
    ):
        pytorch.from_pytorch(tensors_of("torchvision"), "resnet18")
    variables = pytorch.from_pytorch(tensors, "small_cnn")
    with pytest.raises(ValueError, match=r"`layout` must be one of \['pytorch-cifar'"):
        pytorch.to_pytorch(variables, "keras")
    with pytest.raises(ValueError, match="lacks conv1, conv2, dense1, dense2"):
        pytorch.to_pytorch(variables, "torchvision")


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ({"mean": [0.1, 0.2], "std": [1]}, "`mean` must be a number for each of 1 ch"),
        ({"mean": 0.1, "std": [1]}, "`mean` must be a number for each of 1 channels"),
        ({"mean": [0], "std": ["1"]}, "`std` must be a number for each of 1 channels"),
        ({"mean": [float("nan")], "std": [1]}, "`mean` must be a number for each of"),
        ({"mean": [0], "std": [0]}, r"`std` must be positive, got \[0\]"),
    ],
)
def test_wrong_normalization(by, message, tmp_path):
    save_file(tensors_of("pytorch-examples"), tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=message):
        experiments.load_pytorch(tmp_path / "net.safetensors", "small_cnn", **by)


class Malicious:
    """Fails the test when it is unpickled."""

    def __reduce__(self):  # noqa: D105
        return pytest.fail, ("it was unpickled",)


def test_pickle_files_are_refused_unread(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("archive/data.pkl", pickle.dumps(Malicious()))
    for name, data in (
        ("new.pth", archive.getvalue()),
        ("old.pt", pickle.dumps(Malicious(), 2)),
        ("renamed.safetensors", pickle.dumps(Malicious())),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=f"{name} is a pickle file, .*save_file"):
            experiments.load_pytorch(tmp_path / name, "small_cnn", mean=[0], std=[1])


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(tensors_of("pytorch-examples"), path)
    whole = path.read_bytes()
    for data in (b"", b"x", whole[:100], whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"net.safetensors is damaged: .*save"):
            experiments.load_pytorch(path, "small_cnn", mean=[0], std=[1])
    with pytest.raises(UsageError, match="absent is missing"):
        experiments.load_pytorch(tmp_path / "absent", "small_cnn", mean=[0], std=[1])


def test_a_header_that_begins_like_a_pickle(tmp_path):
    path = tmp_path / "net.safetensors"
    tensors = tensors_of("pytorch-examples")
    for length in range(1000):
        save_file(tensors, path, {"note": "x" * length})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes().startswith(pickle.dumps(None)[:1])
    model = experiments.load_pytorch(path, "small_cnn", mean=[0], std=[1])
    assert is_equal(model.args[0], pytorch.from_pytorch(tensors, "small_cnn"))


@pytest.mark.slow
def test_the_file_has_what_pytorch_computes():
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra bench)")
    found = pytorch_logits.computed()
    for layout in NETWORKS:
        assert found[layout]["shapes"] == PYTORCH[layout]["shapes"]
        np.testing.assert_allclose(
            found[layout]["logits"], PYTORCH[layout]["logits"], rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("module", [pytorch, pytorch_files])
def test_examples(module):
    failed, attempted = doctest.testmod(module)
    assert (failed, attempted > 3) == (0, True)
