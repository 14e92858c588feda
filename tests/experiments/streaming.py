"""Streamed images for tests, which lie in memory."""

import dataclasses

import numpy as np

from experiments.data import Split


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Images of a split, read range by range; tells what was read."""

    split: Split
    asked: list = dataclasses.field(default_factory=list)  # the ranges of each read
    read_so_far: list = dataclasses.field(default_factory=list)
    closed: list = dataclasses.field(default_factory=list)  # an entry for each read

    def __len__(self):
        """The number of images."""
        return len(self.split)

    @property
    def image_shape(self):
        return self.split.image_shape

    @property
    def fingerprint(self):
        return self.split.fingerprint

    def subset(self, examples, option):
        return InMemory(self.split.subset(examples, option))

    def read(self, ranges):
        self.asked.append(list(ranges))
        try:
            for start, stop in ranges:
                self.read_so_far.append((start, stop))
                part = self.split.take(np.arange(start, stop))
                yield part.images, part.labels
        finally:
            self.closed.append(True)
