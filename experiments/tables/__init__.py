"""One module per table of the paper."""
