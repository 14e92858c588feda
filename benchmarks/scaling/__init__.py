"""Steps of training, timed on virtual devices and processes of one machine."""
