"""The configuration of one trained model."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp

METHODS = ("none", "weight_decay", "l1", "absum", "snc")


class Setting(NamedTuple):
    """A regularization method and its strength.

    The strength is lambda in the paper, and for SNC the bound sigma.
    """

    method: str
    strength: float


NONE = Setting("none", 0.0)


@dataclasses.dataclass(frozen=True)
class Adversary:
    """PGD on the training images, of which only the attacked ones are trained on.

    With one step it is the fast training of Wong et al. (2020).
    """

    eps: float
    step_size: float
    steps: int
    init_radius: float

    def as_arrays(self) -> dict[str, Any]:
        """The fields as data, so that new values recompile nothing."""
        fields = dataclasses.asdict(self)
        return {name: jnp.asarray(value) for name, value in fields.items()}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What a trained model is asked to be.

    Its last digits also depend on software, device, and the models that it trains
    beside in one program, which its provenance tells.
    """

    dataset: str
    data_fingerprint: str  # of the training images used
    train_examples: int
    validation_examples: int  # held out of the training images
    method: str
    strength: float
    seed: int  # of initialisation, order and dropout
    model: str = "small_cnn"
    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.5
    adversary: Adversary | None = None  # None is training on clean images

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "RunConfig":
        """The inverse of `as_dict`."""
        adversary = fields["adversary"] and Adversary(**fields["adversary"])
        return cls(**fields | {"adversary": adversary})

    @property
    def setting(self) -> Setting:
        """The method and strength."""
        return Setting(self.method, self.strength)

    @property
    def path(self) -> pathlib.Path:
        """The folder of the run below the runs folder, named after all of this."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return (
            pathlib.Path(self.dataset, self.model, self.method, f"{self.strength:g}")
            / f"seed-{self.seed}-{digest}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return dataclasses.asdict(self)
