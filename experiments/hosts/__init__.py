"""Several processes that run one command together, each with devices of its own.

The engine is `jax.distributed`. Every process runs the same code; the first one alone
writes files and the output, and what it finds on disk holds for all.
"""

from experiments.hosts.agreement import agreed, check_alike, everywhere, is_first
from experiments.hosts.joining import HostOptions

__all__ = ["HostOptions", "agreed", "check_alike", "everywhere", "is_first"]
