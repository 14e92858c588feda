"""Speed of the library and the experiments, as ratios to a peer in the same run."""
