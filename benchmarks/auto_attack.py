"""AutoAttack beside pyautoattack, the reference: robust accuracy, passes and speed.

Models are small CNNs for MNIST: two of `results/weights`, without regularization and
with Absum, and one that is trained adversarially. Each row of a package is written to
`results/benchmarks/auto_attack.jsonl` as soon as it is computed, and is not computed
again by the same versions: remove its line to do so.
"""

import functools
import importlib
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import absum_jax
import experiments
from benchmarks import adversarial_training, loops, torch_peer
from benchmarks.rows import stored
from benchmarks.timing import median_seconds
from benchmarks.torch_peer import Robust
from experiments.data import Split, load, pgd_of
from experiments.jobs import digests
from experiments.models import Classifier, Variables, build, variables_of

_ROOT = pathlib.Path(__file__).parents[1]
_FOLDER = _ROOT / "results" / "benchmarks"
ROWS = _FOLDER / "auto_attack.jsonl"
ADVERSARIAL = _FOLDER / "adversarial.safetensors"
_WEIGHTS = _ROOT / "results" / "weights" / "mnist"

WHOLE, PGD = "all", "pgd"
_QUERIES, _BATCH = 5000, 250
# The first eps with more images, and with each component alone.
EPS = {
    "clean": (0.1, 0.05, 0.15, 0.2),
    "Absum": (0.1, 0.05, 0.15, 0.2),
    "adversarial": (0.3, 0.2, 0.25, 0.35),
}
_IMAGES, _FEWER_IMAGES = 1000, 200
# Images of each component alone. From one random start to another, APGD's accuracy on
# 200 images differs by one to two points.
COMPONENTS = {"apgd-ce": 1000, "apgd-t": 1000, "fab-t": 200, "square": 200}
# Square differed by three and five of the first 200 images.
_MORE_COMPONENTS = {"clean": {"square": 1000}, "Absum": {"square": 1000}}
_ADVERSARY_EPS, _ADVERSARY_EPOCHS = 0.3, 6
_LINEAR_IMAGES, _LINEAR_EPS = 5000, (0.0, 0.01, 0.02, 0.05)
_TIMED_IMAGES, _TIMED_QUERIES = 100, 500
_RESNET_IMAGES, _RESNET_STEPS = 16, 20
# So small that no image is broken, and attacks take all their steps.
_UNBROKEN_EPS = 1e-4


class Point(NamedTuple):
    """What a row is about."""

    model: str
    eps: float
    images: int
    component: str


def points() -> Iterator[Point]:
    """Yields the points of the table, the most important ones first."""
    for model, (eps, *others) in EPS.items():
        for component in (WHOLE, PGD):
            yield Point(model, eps, _IMAGES, component)
        for counts in (COMPONENTS, _MORE_COMPONENTS.get(model, {})):
            for component, images in counts.items():
                yield Point(model, eps, images, component)
        for other in others:
            for component in (WHOLE, PGD):
                yield Point(model, other, _FEWER_IMAGES, component)


class _Model(NamedTuple):
    """A network with its weights."""

    classifier: Classifier
    variables: Variables

    @property
    def logits_fn(self) -> jax.tree_util.Partial:
        return jax.tree_util.Partial(self.classifier.logits, self.variables)


@functools.cache
def _data() -> Any:
    return load("mnist")


def _test_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test images, in [0, 1], and their labels."""
    test = _data().test
    assert isinstance(test, Split)
    return test.images[:count] / np.float32(255), test.labels[:count]


@functools.cache
def _model(name: str) -> _Model:
    dataset = _data()
    classifier = build("small_cnn", dataset.mean, dataset.std)
    if name == "adversarial":
        if not ADVERSARIAL.exists():
            variables = _adversarially_trained(classifier)
            experiments.save_pytorch(ADVERSARIAL, variables, "pytorch-examples")
        loaded = experiments.load_pytorch(
            ADVERSARIAL, "small_cnn", mean=dataset.mean, std=dataset.std
        )
        return _Model(classifier, loaded.args[0])
    file = {"clean": "none-0", "Absum": "absum-0.01"}[name]
    model = experiments.load_model(
        _WEIGHTS / f"{file}.safetensors", seed=11, data=dataset
    )
    return _Model(classifier, model.variables)


def _adversarially_trained(classifier: Classifier) -> Variables:
    """Returns the weights of a small CNN after a few epochs of PGD's images."""
    train = _data().train
    assert isinstance(train, Split)
    return adversarial_training.train(
        classifier.logits, jax.jit(classifier.init)(jax.random.key(0)),
        jnp.asarray(train.images / np.float32(255)), jnp.asarray(train.labels),
        key=jax.random.key(1), tx=optax.adam(1e-3), eps=_ADVERSARY_EPS,
        epochs=_ADVERSARY_EPOCHS,
    )  # fmt: skip


def _components(component: str) -> tuple[str, ...]:
    return tuple(COMPONENTS) if component == WHOLE else (component,)


def _ours(point: Point) -> Robust:
    """Attacks by this library; PGD runs as in the paper."""
    logits_fn = _model(point.model).logits_fn
    x, y = map(jnp.asarray, _test_images(point.images))
    key = jax.random.key(0)
    if point.component == PGD:
        paper = pgd_of("mnist")
        accuracy = absum_jax.pgd_accuracy(
            logits_fn, x, y, key=key, eps=point.eps, step_size=paper.step_size,
            steps=paper.test_steps, init_radius=paper.init_radius, batch_size=_BATCH,
        ).accuracy  # fmt: skip
        gradients = point.images * paper.test_steps
        passes = gradients + point.images, gradients
    else:
        result = absum_jax.auto_attack(
            logits_fn, x, y, key=key, eps=point.eps, queries=_QUERIES,
            components=_components(point.component), batch_size=_BATCH,
        )  # fmt: skip
        accuracy = absum_jax.accuracy(logits_fn, result.images, y, batch_size=_BATCH)
        passes = int(result.forward.sum()), int(result.backward.sum())
    return Robust(round(float(accuracy) * point.images), *passes)


def _reference(point: Point) -> Robust:
    """Attacks by pyautoattack."""
    model, dataset = _model(point.model), _data()
    return torch_peer.auto_attack(
        model.variables, dataset.mean, dataset.std, *_test_images(point.images),
        point.eps, _components(point.component), _QUERIES, _BATCH,
    )()  # fmt: skip


class Row(NamedTuple):
    """What the attack of a package left of the images of a point, and what it cost."""

    model: str
    eps: float
    images: int
    component: str
    package: str
    weights: str  # their digest
    robust: int  # images that are still classified correctly
    forward: int  # passes of an image
    backward: int
    cpu_seconds: float  # of all cores, with compilation


def _versions(*packages: str) -> str:
    return ", ".join(
        f"{name} {importlib.import_module(name).__version__}" for name in packages
    )


def row_of(
    path: pathlib.Path, point: Point, package: str, weights: str,
    attack: Callable[[Point], Robust],
) -> Row:  # fmt: skip
    """Returns the row of a point from a file, or computes and appends it."""

    def measured() -> dict[str, Any]:
        started = time.process_time()
        robust, forward, backward = attack(point)
        seconds = round(time.process_time() - started, 1)
        return {
            "robust": robust, "forward": forward, "backward": backward,
            "cpu_seconds": seconds,
        }  # fmt: skip

    key = point._asdict() | {"package": package, "weights": weights}
    return Row(**stored(path, key, measured))


def columns(ours: Row, peer: Row | None) -> dict[str, str]:
    """Formats a line of the table: both packages, or PGD, which has no peer."""

    def percent(row: Row) -> float:
        return 100 * row.robust / row.images

    def both(value: Callable[[Row], str]) -> str:
        return value(ours) + (f" / {value(peer)}" if peer else "")

    return {
        "%": both(lambda row: f"{percent(row):.1f}"),
        "difference": f"{percent(ours) - percent(peer):+.1f}" if peer else "",
        "forward passes": both(lambda row: f"{row.forward:,}"),
        "backward passes": both(lambda row: f"{row.backward:,}"),
        "CPU seconds": both(lambda row: f"{row.cpu_seconds:,.0f}"),
    }


def agreement() -> list[dict[str, Any]]:
    """Robust accuracy of the same weights by each package, absum_jax / pyautoattack.

    CPU seconds are those of all cores, with compilation.
    """
    rows = []
    for point in points():
        weights = digests.of_arrays(_model(point.model).variables)[:12]
        ours = row_of(ROWS, point, _versions("absum_jax", "jax"), weights, _ours)
        peer = None
        if point.component != PGD and torch_peer.has_pyautoattack():
            package = _versions("pyautoattack", "torch")
            peer = row_of(ROWS, point, package, weights, _reference)
        rows.append(
            {
                "benchmark": "robust accuracy, absum_jax / pyautoattack",
                "case": f"{point.model}, eps = {point.eps:g}, {point.images:,} images, "
                f"{point.component}",
                "columns": columns(ours, peer),
            }
        )
    return rows


def closed_form(
    kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, eps: float
) -> float:
    """Computes the robust accuracy of a linear classifier, in float64.

    An image can be broken if, for another class, the largest lead of its logit over
    that of the label, with each pixel at the one or the other end of its interval, is
    positive.

    Args:
      kernel: (pixels, classes).
      bias: (classes,).
      x: images (N, height, width, channels), in [0, 1].
      y: labels (N,).
      eps: radius of the L-infinity ball.
    """
    pixels = x.reshape(len(x), -1).astype(float)
    lowest, highest = np.maximum(pixels - eps, 0), np.minimum(pixels + eps, 1)
    broken = np.zeros(len(x), bool)
    for target in range(len(bias)):
        normal = (kernel[:, [target]] - kernel[:, y]).T
        lead = np.where(normal > 0, highest * normal, lowest * normal).sum(axis=1)
        broken |= (lead + bias[target] - bias[y] > 0) & (y != target)
    return 1 - float(broken.mean())


def linear_model() -> list[dict[str, Any]]:
    """Robust accuracy of a linear classifier: in closed form, and by each component."""
    train = _data().train
    assert isinstance(train, Split)
    known = train.images[:_LINEAR_IMAGES].reshape(_LINEAR_IMAGES, -1) / 255
    known = np.pad(known, ((0, 0), (0, 1)), constant_values=1)
    ridge = known.T @ known + np.eye(known.shape[1])
    *kernel, bias = np.linalg.solve(
        ridge, known.T @ np.eye(10)[train.labels[:_LINEAR_IMAGES]]
    )
    weights = np.asarray(kernel, np.float32), bias.astype(np.float32)
    logits_fn = jax.tree_util.Partial(_linear_logits, weights)
    x, y = _test_images(_FEWER_IMAGES)
    names = {WHOLE: tuple(COMPONENTS)} | {name: (name,) for name in COMPONENTS}
    eps = np.array(_LINEAR_EPS, np.float32)
    accuracies = {
        name: absum_jax.auto_attack(
            logits_fn, jnp.asarray(x), jnp.asarray(y), key=jax.random.key(0),
            eps=eps, components=components, queries=_QUERIES, batch_size=_BATCH,
        ).accuracy
        for name, components in names.items()
    }  # fmt: skip
    return [
        {
            "benchmark": f"robust accuracy of a linear model, {len(y)} images, %",
            "case": f"eps = {each:g}",
            "columns": {"closed form": f"{100 * closed_form(*weights, x, y, each):.1f}"}
            | {name: f"{100 * float(a[i]):.1f}" for name, a in accuracies.items()},
        }
        for i, each in enumerate(_LINEAR_EPS)
    ]


def _linear_logits(weights: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    kernel, bias = weights
    return x.reshape(len(x), -1) @ kernel + bias


def speed() -> list[dict[str, Any]]:
    """Images a second of each component alone on the small CNN.

    Each takes 100 steps, for each of nine classes if targeted, or as many queries.
    """
    model, dataset = _model("adversarial"), _data()
    x, y = _test_images(2 * _TIMED_IMAGES)
    correct = np.asarray(model.logits_fn(x).argmax(axis=-1) == y)
    x, y = x[correct][:_TIMED_IMAGES], y[correct][:_TIMED_IMAGES]
    eps = EPS["adversarial"][0]
    on_device = jnp.asarray(x), jnp.asarray(y)
    cases: dict[str, Callable[[], Any]] = {}
    for component in COMPONENTS:
        cases[component] = functools.partial(
            absum_jax.auto_attack, model.logits_fn, *on_device, key=jax.random.key(0),
            eps=eps, components=(component,), queries=_TIMED_QUERIES,
        )  # fmt: skip
        if torch_peer.has_pyautoattack():
            cases[f"{component}, pyautoattack"] = torch_peer.auto_attack(
                model.variables, dataset.mean, dataset.std, x, y, eps, (component,),
                _TIMED_QUERIES, _BATCH,
            )  # fmt: skip
    title = f"AutoAttack's components, small CNN, {_TIMED_QUERIES} queries"
    return _speed_rows(title, median_seconds(cases, rounds=3), len(y), "pyautoattack")


def resnet_speed() -> list[dict[str, Any]]:
    """Images a second of APGD-CE on ResNet-18, beside that of the bare gradient."""
    network = loops.networks()[loops.NETWORKS[0]]
    correct = network.logits_fn(network.x).argmax(axis=-1) == network.y
    x, y = network.x[correct][:_RESNET_IMAGES], network.y[correct][:_RESNET_IMAGES]
    gradient = jax.jit(absum_jax.canonical_convolutions(loops.input_gradient))
    cases: dict[str, Callable[[], Any]] = {
        "input gradient": lambda: gradient(network.logits_fn, x, y),
        "apgd": lambda: absum_jax.apgd(
            network.logits_fn, x, y, key=jax.random.key(0), eps=_UNBROKEN_EPS,
            steps=_RESNET_STEPS,
        ),
    }  # fmt: skip
    if torch_peer.has_pyautoattack():
        images, labels = np.asarray(x), np.asarray(y)
        passes = torch_peer.resnet_passes(images, labels)
        cases["input gradient, PyTorch"] = passes["input gradient"]
        cases["apgd, PyTorch"] = torch_peer.resnet_apgd(
            variables_of(network.logits_fn), images, labels, _UNBROKEN_EPS,
            _RESNET_STEPS,
        )  # fmt: skip
    title = f"APGD-CE, {_RESNET_STEPS} steps, ResNet-18, {len(y)} images"
    return _speed_rows(title, median_seconds(cases, rounds=5), len(y), "PyTorch")


def _speed_rows(
    title: str, seconds: Mapping[str, float], images: int, peer: str
) -> list[dict[str, Any]]:
    """Returns a row for each case; the ratio is to the case of the peer."""
    return [
        {
            "benchmark": title,
            "case": case,
            "images_per_s": images / value,
            "ratio": seconds.get(f"{case}, {peer}", value) / value,
            "ratio_to": peer,
        }
        for case, value in seconds.items()
    ]
