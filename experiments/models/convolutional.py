"""Convolutional networks for images.

References
----------
McMahan, Moore, Ramage, Hampson, Agueera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv 1602.05629): cnn. He, Zhang, Ren, Sun, "Deep
Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385): resnet18. Simonyan,
Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015 (arXiv
1409.1556): vgg11. Wu, He, "Group Normalization", ECCV 2018 (arXiv 1803.08494).
"""

from __future__ import annotations

from torch import nn

Shape = tuple[int, ...]


def build_cnn(
    input_shape: Shape, num_classes: int, hidden: int = 512, width: int = 32
) -> nn.Module:
    """Return the two-convolution net of McMahan et al., which FedEraser and PGA use.

    1,663,370 parameters for 28x28 grey images. ``width`` is the number of channels of the first
    convolution; the second has twice as many.
    """
    channels, rows, columns = _image(input_shape, 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (rows // 4) * (columns // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def build_resnet18(
    input_shape: Shape, num_classes: int, groups: int = 32, width: int = 64
) -> nn.Module:
    """Return ResNet-18, of torchvision's blocks, with GroupNorm and a stem for small images.

    GroupNorm keeps no statistics of the data, which subtraction could not take out again; each of
    its ``groups`` takes as many channels as the others. ``width`` is the number of channels in the
    first stage, 64 in the paper; the later stages have 2, 4 and 8 times as many.
    """
    from torchvision.models.resnet import BasicBlock

    channels, _, _ = _image(input_shape, 1)

    def norm(size: int) -> nn.Module:
        return nn.GroupNorm(groups, size)

    def stage(inputs: int, size: int, stride: int) -> nn.Module:
        shortcut = None
        if stride > 1:
            shortcut = nn.Sequential(nn.Conv2d(inputs, size, 1, stride, bias=False), norm(size))
        first = BasicBlock(inputs, size, stride, shortcut, norm_layer=norm)
        return nn.Sequential(first, BasicBlock(size, size, norm_layer=norm))

    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(channels, width, 3, padding=1, bias=False))
    model.add_module("bn1", norm(width))
    model.add_module("relu", nn.ReLU())
    inputs = width
    for place, factor in enumerate((1, 2, 4, 8), 1):
        size = factor * width
        model.add_module(f"layer{place}", stage(inputs, size, 1 if place == 1 else 2))
        inputs = size
    model.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(inputs, num_classes))
    return _for_relu(model)


def build_vgg11(
    input_shape: Shape, num_classes: int, groups: int = 32, width: int = 64
) -> nn.Module:
    """Return VGG-11 for small images: one linear layer behind the convolutions.

    ``width`` is the number of channels of the first convolution, 64 in the paper; the later ones
    have 2, 4 and 8 times as many. GroupNorm of so many ``groups`` follows each of them; 0: none,
    as in the paper, which then trains slowly. Images that poolings have shrunk to one pixel are
    pooled no further.
    """
    channels, height, length = _image(input_shape, 2)
    side = min(height, length)
    layers: list[nn.Module] = []
    for factor, pools in ((1, 1), (2, 1), (4, 0), (4, 1), (8, 0), (8, 1), (8, 0), (8, 1)):
        size = factor * width
        layers.append(nn.Conv2d(channels, size, 3, padding=1, bias=not groups))
        if groups:
            layers.append(nn.GroupNorm(groups, size))
        layers.append(nn.ReLU())
        if pools and side > 1:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        channels = size
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential()
    model.add_module("features", features)
    model.add_module("classifier", nn.Linear(channels, num_classes))
    return _for_relu(model)


def _image(input_shape: Shape, least: int) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise ValueError(f"it needs images of at least {least}x{least} pixels; take the model mlp")
    channels, height, width = input_shape
    return channels, height, width


def _for_relu(model: nn.Module) -> nn.Module:
    """Return the model, its convolutions drawn anew so that ReLU keeps the size of signals."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
