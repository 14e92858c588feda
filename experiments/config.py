"""The configuration of one trained model."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp


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
        """Returns the fields as data, so that new values recompile nothing."""
        fields = dataclasses.asdict(self)
        return {name: jnp.asarray(value) for name, value in fields.items()}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained, whatever its method.

    The learning rate is divided by ten after each milestone, in epochs.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    milestones: tuple[int, ...] = ()
    decay: float = 0.0  # weight decay of all parameters, whatever the method
    augmented: bool = False  # by crops and flips
    adversary: Adversary | None = None  # None is training on clean images
    batch_norm_groups: int = 1  # of a batch, each with its own statistics

    def epoch_steps(self, examples: int) -> int:
        """Counts the steps of an epoch; an incomplete last batch is dropped."""
        return examples // self.batch_size

    def scaled(self, epochs: int) -> "Recipe":
        """Scales the milestones to another number of epochs."""
        # None before the end of the first epoch, which has the whole learning rate.
        milestones = tuple(
            max(1, round(m * epochs / self.epochs)) for m in self.milestones
        )
        return dataclasses.replace(self, epochs=epochs, milestones=milestones)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Recipe":
        """Inverts `dataclasses.asdict`, through JSON too."""
        adversary = fields["adversary"] and Adversary(**fields["adversary"])
        milestones = tuple(fields["milestones"])
        return cls(**fields | {"adversary": adversary, "milestones": milestones})


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What identifies a trained model.

    Its last digits also depend on software, device and the models trained in the same
    program, which its provenance records.
    """

    dataset: str
    data_fingerprint: str  # of the training images used
    train_examples: int
    validation_examples: int  # held out of the training images
    method: str
    strength: float
    seed: int  # of initialization, order, augmentation and dropout
    model: str
    recipe: Recipe
    dtype: str = "float32"  # of convolutions and activations
    # "first" if the small CNN's max-pooling gives the gradient to the first of equal
    # entries. None for other networks, and for small CNNs trained before this field
    # existed, whose pooling divided the gradient among equal entries.
    max_pool_ties: str | None = None
    # How many steps at the end of training have no clip of SNC. None without SNC or
    # batch normalization, and for models trained before this field existed, which may
    # end with a clip.
    settle_steps: int | None = None

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "RunConfig":
        """Inverts `as_dict`."""
        return cls(**fields | {"recipe": Recipe.from_dict(fields["recipe"])})

    @property
    def setting(self) -> Setting:
        """Returns the method and strength."""
        return Setting(self.method, self.strength)

    @property
    def path(self) -> pathlib.Path:
        """Returns the folder below the runs folder, named after all of this."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return pathlib.Path(
            self.dataset, self.model, self.method, f"{self.strength:g}",
            f"seed-{self.seed}-{digest}",
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields, as JSON holds them."""
        fields = json.loads(json.dumps(dataclasses.asdict(self)))
        # Runs from before these fields, and those that they do not concern, keep their
        # names.
        if self.recipe.batch_norm_groups == 1:
            del fields["recipe"]["batch_norm_groups"]
        for name in ("max_pool_ties", "settle_steps"):
            if fields[name] is None:
                del fields[name]
        return fields
