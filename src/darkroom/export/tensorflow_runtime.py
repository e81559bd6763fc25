"""TensorFlow, without what it writes about itself; the one place that imports it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported: remarks on this machine's cores

import tensorflow as tf

__all__ = ["quiet", "tf"]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep remarks of TensorFlow and of PyTorch's exporter from the screen: they speak to their own developers."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
