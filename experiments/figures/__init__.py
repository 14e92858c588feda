"""One module per figure of the paper, and the picture of the demo."""
