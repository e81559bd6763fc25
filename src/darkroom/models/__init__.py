"""Networks: our own convolutional family, and (later) pre-trained backbones."""
