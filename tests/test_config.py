"""Settings are checked where they enter, and say what to type instead."""

import ast
import inspect
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from darkroom import config
from darkroom.config import DataConfig, ExportConfig, ServeConfig, StorageConfig, TrainConfig
from darkroom.errors import UsageError

REFUSED: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (DataConfig, {"image_size": 7}, "--image-size is 7"),
    (DataConfig, {"image_size": 1025}, "--image-size is 1025"),
    (DataConfig, {"validation_fraction": 0.0}, "--validation-fraction is 0.0"),
    (DataConfig, {"test_fraction": -0.1}, "--test-fraction is -0.1"),
    (DataConfig, {"test_fraction": math.nan}, "--test-fraction is nan"),
    (DataConfig, {"validation_fraction": 0.5, "test_fraction": 0.45}, "leave some to train on"),
    (DataConfig, {"train_fraction": 0.0}, "--train-fraction is 0.0: give a part above 0, up to 1"),
    (DataConfig, {"train_fraction": 1.01}, "--train-fraction is 1.01"),
    (DataConfig, {"train_fraction": math.nan}, "--train-fraction is nan"),
    (DataConfig, {"seed": -1}, "--seed is -1"),
    (DataConfig, {"seed": 2**32}, "--seed is 4294967296"),
    (TrainConfig, {"minutes": 5, "epochs": 3}, "--minutes 5 and --epochs 3 contradict each other"),
    (TrainConfig, {"minutes": 5, "compile": True}, "--compile takes a time that cannot be planned: give --epochs"),
    (TrainConfig, {"accumulate": 2, "compile": True}, "--compile and --accumulate 2 do not go together"),
    (TrainConfig, {"minutes": 0}, "--minutes is 0"),
    (TrainConfig, {"minutes": math.nan}, "--minutes is nan"),
    (TrainConfig, {"minutes": 1e9}, "a month"),
    (TrainConfig, {"epochs": 0}, "--epochs is 0"),
    (TrainConfig, {"batch_size": 1}, "--batch-size is 1"),
    (TrainConfig, {"accumulate": 0}, "--accumulate is 0"),
    (TrainConfig, {"patience": 0}, "--patience is 0"),
    (TrainConfig, {"threads": 0}, "--threads is 0"),
    (TrainConfig, {"width": 0.01}, "--width is 0.01"),
    (TrainConfig, {"model": "resnet18", "width": 2.0}, "--width is for our own network, not for resnet18"),
    (TrainConfig, {"model": "resnet18", "convolutions": 3}, "--convolutions is for our own network"),
    (TrainConfig, {"layer_decay": 0.5}, "--layer-decay is for pre-trained networks"),
    (TrainConfig, {"learning_rate": -1}, "--learning-rate is -1: give a number from 0 on"),
    (TrainConfig, {"learning_rate": math.inf}, "--learning-rate is inf"),
    (TrainConfig, {"weight_decay": math.nan}, "--weight-decay is nan"),
    (TrainConfig, {"momentum": 1.0}, "--momentum is 1.0: give a value from 0 to 0.99999"),
    (TrainConfig, {"dropout": 1.5}, "--dropout is 1.5"),
    (TrainConfig, {"label_smoothing": -0.1}, "--label-smoothing is -0.1"),
    (TrainConfig, {"ema_decay": 1.0}, "--ema-decay is 1.0"),
    (TrainConfig, {"crop_scale": 0.0}, "--crop-scale is 0.0"),
    (TrainConfig, {"colour_jitter": 2.0}, "--colour-jitter is 2.0"),
    (TrainConfig, {"translate": -1}, "--translate is -1"),
    (ExportConfig, {"format": "saved-model", "int8": True}, "--int8 and --format saved-model contradict each other"),
    (ServeConfig, {"engine": "tf-serving"}, "say where with --tf-serving-url"),
    (ServeConfig, {"tf_serving_url": "grpc://host:8500"}, "is asked by --engine tf-serving only"),
    (ServeConfig, {"engine": "tf-serving", "tf_serving_url": "host:8500"}, "give grpc://HOST:8500"),
    (ServeConfig, {"port": 65536}, "--port is 65536"),
    (ServeConfig, {"port": -1}, "--port is -1"),
    (ServeConfig, {"threads": 0}, "--threads is 0"),
    (ServeConfig, {"max_request_megabytes": 0}, "--max-request-megabytes is 0"),
    (ServeConfig, {"max_megapixels": math.inf}, "--max-megapixels is inf"),
    (ServeConfig, {"max_file_megabytes": math.nan}, "--max-file-megabytes is nan"),
    (ServeConfig, {"max_queue": 0}, "--max-queue is 0"),
    (ServeConfig, {"max_decode_seconds": -1}, "--max-decode-seconds is -1"),
    (ServeConfig, {"max_requests_per_minute": -1}, "--max-requests-per-minute is -1"),
    (ServeConfig, {"max_requests_per_minute": math.nan}, "--max-requests-per-minute is nan"),
    (ServeConfig, {"max_connections": 1000}, "--max-connections is 1000: give at most 700"),
    (ServeConfig, {"max_memory_megabytes": 32}, "--max-memory-megabytes 32 does not hold one request"),
    (ServeConfig, {"stop_seconds": math.inf}, "--stop-seconds is inf"),
    (ServeConfig, {"proxy_hops": 0}, "--proxy-hops is 0"),
    (ServeConfig, {"allow_origins": "example.org"}, "--allow-origins has 'example.org'"),
    (ServeConfig, {"allow_origins": "https://a.example, https://b.example/"}, "has 'https://b.example/'"),
    (ServeConfig, {"allow_origins": "*"}, "--allow-origins has '*'"),
    (ServeConfig, {"frame_ancestors": "https://a.example; script-src *"}, "--frame-ancestors has"),
]


@pytest.mark.parametrize(("kind", "values", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_what_is_out_of_range_is_refused_in_one_line(
    kind: Callable[..., Any], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**values)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (DataConfig, {"image_size": 8, "seed": 2**32 - 1, "validation_fraction": 0.01, "test_fraction": 0.89}),
        (DataConfig, {"train_fraction": 1e-6}),
        (TrainConfig, {"minutes": 0.01, "crop_scale": 1.0, "momentum": 0.0, "learning_rate": 0.0}),
        (TrainConfig, {"epochs": 1, "batch_size": 2, "ema_decay": 0.0}),
        (ServeConfig, {"port": 0, "max_files": 1}),
        (ServeConfig, {"max_requests_per_minute": 0, "max_memory_megabytes": 64, "max_connections": 700}),
        (ServeConfig, {"allow_origins": "https://a.example,http://[::1]:8000", "stop_seconds": 0}),
    ],
)
def test_the_ends_of_the_ranges_are_allowed(kind: Callable[..., Any], values: dict[str, Any]) -> None:
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        DataConfig().seed = 1  # type: ignore[misc]


def test_every_field_says_what_it_is() -> None:
    """The sentence under a field is its help on the command line."""
    module = ast.parse(inspect.getsource(config))
    for definition in (node for node in module.body if isinstance(node, ast.ClassDef)):
        body = definition.body
        for place, node in enumerate(body):
            if isinstance(node, ast.AnnAssign):
                after = body[place + 1]
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{definition.name}.{ast.unparse(node.target)} has no sentence"


def test_data_settings_hold_where_the_data_is_stored() -> None:
    assert {field.name for field in fields(StorageConfig)} == {"archive", "cache"}
    assert isinstance(DataConfig(), StorageConfig)
