"""The CNN of TensorFlow's tutorial "Convolutional Neural Network (CNN)", on the arrays that all contestants share.

    benchmarks/.venv-keras/bin/python benchmarks/keras_cnn.py ARRAYS.npz --out RESULT.json [--epochs 10] [--seed 0]

Three convolutions, two poolings, Adam, batches of 32, 10 epochs, pixels divided by 255, nothing else: as a beginner
types it. It runs in an environment of its own and knows nothing of darkroom. `seconds` is the time of `fit`, with the
validation after each epoch that the tutorial asks for; loading, scaling and the test come before and after it.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf


def main() -> None:
    """Train, test and write one file."""
    options = parse()
    with np.load(options.arrays) as arrays:
        splits = {
            name: (arrays[f"{name}_pixels"] / np.float32(255), arrays[f"{name}_labels"])
            for name in ("train", "validation", "test")
        }
        classes = len(arrays["classes"])
    tf.keras.utils.set_random_seed(options.seed)
    network = build(splits["train"][0].shape[1:], classes)
    start = time.perf_counter()
    stopwatch = Stopwatch(start)
    history = network.fit(
        *splits["train"], epochs=options.epochs, validation_data=splits["validation"], callbacks=[stopwatch], verbose=2
    )
    seconds = time.perf_counter() - start
    _, test_accuracy = network.evaluate(*splits["test"], verbose=0)
    result = {
        "seconds": seconds,
        "test_accuracy": test_accuracy,
        "validation_accuracy": history.history["val_accuracy"][-1],
        "curve": list(zip(stopwatch.seconds, history.history["val_accuracy"], strict=True)),
        "parameters": network.count_params(),
        "versions": {"tensorflow": tf.__version__, "keras": tf.keras.__version__},
    }
    options.out.write_text(json.dumps(result))


def parse() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build(shape: tuple[int, ...], classes: int) -> tf.keras.Model:
    """The tutorial's network for pictures of `shape` (H, W, 3), compiled."""
    layers = tf.keras.layers
    network = tf.keras.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return network


class Stopwatch(tf.keras.callbacks.Callback):
    """Seconds from `start` to the end of each epoch, its validation included."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start, self.seconds = start, list[float]()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stamp."""
        self.seconds.append(time.perf_counter() - self.start)


if __name__ == "__main__":
    main()
