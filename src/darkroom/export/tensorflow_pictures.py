"""The preprocessing contract in TensorFlow's own operators: from the bytes of a picture to the network's pixels.

It follows `darkroom.preprocess` step by step, and differs from it where TensorFlow's decoders do:

- formats: JPEG, PNG, GIF and BMP, and WebP without transparency where the server is new enough; others are refused;
- transparency is laid on the background for PNG only, and a GIF's transparent parts are what its frame says;
- 16-bit grey keeps its high byte, instead of being divided by 257; the palette of a BMP is not looked up;
- orientation is read from the EXIF data of JPEG files, not from XMP, nor from other formats;
- Pillow resizes in integers of 22 bits, TensorFlow in float32: a level may round to its neighbour.

Width × height is not held against a bound before a picture is decoded: this signature is for clients that are known.
"""

from typing import Any

from darkroom.export.tensorflow_runtime import tf
from darkroom.preprocess import REDUCTIONS, SPARE, Preprocessing

KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic", "lanczos": "lanczos3", "box": "box"}
"""Pillow's filters by the names of TensorFlow, which stretches them alike where a picture becomes smaller."""

PNG, JPEG = b"\x89PNG", b"\xff\xd8\xff"

EXIF = {0: 0xFF, 1: 0xE1, 4: ord("E"), 5: ord("x"), 6: ord("i"), 7: ord("f"), 8: 0, 9: 0}
"""How the segment of a JPEG file begins that holds EXIF data; bytes 2 and 3 are its length."""

EXIF_HEADER = 10
EXIF_WITHIN = 2**16
"""Bytes of a file in which that segment is looked for; it is one of the first."""

ORIENTATION = 0x0112


def pixels_of(pictures: Any, preprocessing: Preprocessing) -> Any:
    """Files (N,) as strings -> pixels (N, H, W, 3) uint8."""
    shape = tf.TensorSpec((preprocessing.height, preprocessing.width, 3), tf.uint8)
    return tf.map_fn(lambda content: prepared(content, preprocessing), pictures, fn_output_signature=shape)


def prepared(content: Any, preprocessing: Preprocessing) -> Any:
    """One file, a string -> pixels (H, W, 3) uint8."""
    image = tf.ensure_shape(_decoded(content, preprocessing), (None, None, 3))
    return tf.ensure_shape(_resized(image, preprocessing), (preprocessing.height, preprocessing.width, 3))


def _decoded(content: Any, preprocessing: Preprocessing) -> Any:
    """An upright picture (h, w, 3) uint8; its first bytes tell the format."""
    return tf.cond(
        _begins(content, JPEG),
        lambda: _jpeg(content, preprocessing),
        lambda: tf.cond(
            _begins(content, PNG),
            lambda: _on_background(tf.io.decode_png(content, channels=4), preprocessing),
            lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
        ),
    )


def _jpeg(content: Any, preprocessing: Preprocessing) -> Any:
    """A JPEG file, upright, decoded at a part of its size where that is as the contract has it."""
    orientation = _orientation(content)

    def decoded(reduction: int) -> Any:
        # The accurate transform is what Pillow takes; TensorFlow's default is a faster, rougher one.
        return tf.io.decode_jpeg(content, channels=3, ratio=reduction, dct_method="INTEGER_ACCURATE")

    if not preprocessing.reduces:
        return _upright(decoded(1), orientation)
    shape = tf.io.extract_jpeg_shape(content)
    quarter = orientation >= 5
    height, width = tf.where(quarter, shape[1], shape[0]), tf.where(quarter, shape[0], shape[1])
    shorter = tf.cast(tf.minimum(height, width), tf.float64)
    spare = tf.minimum(_spare(height, width, preprocessing), shorter)
    place = tf.reduce_sum([tf.cast(spare >= SPARE * each, tf.int32) for each in REDUCTIONS])
    choices = [lambda each=each: decoded(each) for each in (1, *reversed(REDUCTIONS))]
    return _upright(tf.switch_case(place, choices), orientation)


def _spare(height: Any, width: Any, preprocessing: Preprocessing) -> Any:
    """How many times as wide and high as the target the part is that is used of an upright picture."""
    if preprocessing.resize == "cover":
        left, top, right, bottom = _covering_box(height, width, preprocessing)
        return tf.minimum((right - left) / preprocessing.width, (bottom - top) / preprocessing.height)
    across = tf.cast(width, tf.float64) / preprocessing.width
    down = tf.cast(height, tf.float64) / preprocessing.height
    return tf.minimum(across, down) if preprocessing.resize == "stretch" else tf.maximum(across, down)


def _begins(content: Any, signature: bytes) -> Any:
    return tf.equal(tf.strings.substr(content, 0, len(signature)), signature)


def _on_background(image: Any, preprocessing: Preprocessing) -> Any:
    """(h, w, 4) uint8 -> (h, w, 3): Pillow's division by 255, which rounds."""
    levels = tf.cast(image, tf.int32)
    colour, alpha = levels[:, :, :3], levels[:, :, 3:]
    background = tf.constant(preprocessing.background, tf.int32)
    mixed = colour * alpha + background * (255 - alpha) + 128
    return tf.cast((mixed // 256 + mixed) // 256, tf.uint8)


def _orientation(content: Any) -> Any:
    """EXIF orientation of a JPEG file, 1 to 8; 1 where there is none or where it is damaged."""
    raw = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, EXIF_WITHIN), tf.uint8), tf.int64)
    length = tf.shape(raw)[0]
    padded = tf.pad(raw, [[0, EXIF_HEADER + 2]])
    begins = tf.reduce_all([padded[place : place + length] == byte for place, byte in EXIF.items()], axis=0)
    start = tf.reduce_min(tf.where(begins, tf.range(length), length))  # `length` where there is none
    tiff = tf.cast(start, tf.int64) + EXIF_HEADER
    last = tf.cast(length, tf.int64) + EXIF_HEADER + 1

    def number(place: Any, size: int) -> Any:
        """Unsigned integers of `size` bytes at those places, in the byte order that the EXIF data announce."""
        places = tf.clip_by_value(tf.expand_dims(place, -1) + tf.range(size, dtype=tf.int64), 0, last)
        given = tf.gather(padded, places)
        ordered = tf.where(padded[tiff] == ord("I"), given, tf.reverse(given, [-1]))
        return tf.reduce_sum(ordered * tf.constant([256**power for power in range(size)], tf.int64), axis=-1)

    directory = tiff + number(tiff + 4, 4)
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    values = tf.where(number(entries, 2) == ORIENTATION, number(entries + 8, 2), 0)
    value = tf.reduce_max(tf.concat([values, tf.zeros(1, tf.int64)], 0))
    return tf.where((start < length) & (value >= 1) & (value <= 8), value, 1)


def _upright(image: Any, orientation: Any) -> Any:
    """A stored picture (h, w, 3) turned as its orientation says: first its axes, then its columns and rows."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    mirrored = tf.reduce_any(tf.constant([2, 3, 6, 7], tf.int64) == orientation)
    image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    upside_down = tf.reduce_any(tf.constant([3, 4, 7, 8], tf.int64) == orientation)
    return tf.cond(upside_down, lambda: tf.reverse(image, [0]), lambda: image)


def _resized(image: Any, preprocessing: Preprocessing) -> Any:
    """(h, w, 3) uint8 -> (H, W, 3) uint8; boxes are (left, top, right, bottom) in pixels, as float64."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    target = (preprocessing.height, preprocessing.width)
    whole = (0.0, 0.0, tf.cast(width, tf.float64), tf.cast(height, tf.float64))
    interpolation = preprocessing.interpolation
    if preprocessing.resize == "cover":
        box = _covering_box(height, width, preprocessing)
        return _scaled(image, target, box=box, interpolation=interpolation)
    if preprocessing.resize == "stretch":
        return _scaled(image, target, box=whole, interpolation=interpolation)
    size = _fitting_size(height, width, preprocessing)
    return _centred(_scaled(image, size, box=whole, interpolation=interpolation), size, preprocessing)


def _covering_box(height: Any, width: Any, preprocessing: Preprocessing) -> tuple[Any, Any, Any, Any]:
    target_height, target_width = preprocessing.height, preprocessing.width
    wider = width * target_height > height * target_width
    width, height = tf.cast(width, tf.float64), tf.cast(height, tf.float64)
    box_width = tf.where(wider, height * target_width / target_height, width) * preprocessing.crop_fraction
    box_height = tf.where(wider, height, width * target_height / target_width) * preprocessing.crop_fraction
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def _fitting_size(height: Any, width: Any, preprocessing: Preprocessing) -> tuple[Any, Any]:
    """Height and width of the whole picture within the target."""
    target_height, target_width = preprocessing.height, preprocessing.width
    wider = width * target_height > height * target_width
    fitting_height = tf.maximum(1, (2 * height * target_width + width) // (2 * width))
    fitting_width = tf.maximum(1, (2 * width * target_height + height) // (2 * height))
    return tf.where(wider, fitting_height, target_height), tf.where(wider, target_width, fitting_width)


def _centred(image: Any, size: tuple[Any, Any], preprocessing: Preprocessing) -> Any:
    """A picture of that size on the background, an odd pixel going right or below."""
    background = tf.constant(preprocessing.background, tf.int32)
    before = [(preprocessing.height - size[0]) // 2, (preprocessing.width - size[1]) // 2]
    behind = [preprocessing.height - size[0] - before[0], preprocessing.width - size[1] - before[1]]
    pads = [[before[0], behind[0]], [before[1], behind[1]], [0, 0]]
    return tf.cast(tf.pad(tf.cast(image, tf.int32) - background, pads) + background, tf.uint8)


def _scaled(image: Any, size: tuple[Any, Any], *, box: tuple[Any, Any, Any, Any], interpolation: str) -> Any:
    """The box of a picture brought to a size (height, width), rounded to whole levels after each side as in Pillow."""
    left, top, right, bottom = box
    if interpolation == "nearest":
        columns = _nearest(left, right, size[1], tf.shape(image)[1])
        return tf.gather(tf.gather(image, columns, axis=1), _nearest(top, bottom, size[0], tf.shape(image)[0]), axis=0)
    height = tf.shape(image)[0]
    narrow = _along(image, (height, size[1]), axis=1, first=left, last=right, kernel=KERNELS[interpolation])
    return _along(narrow, size, axis=0, first=top, last=bottom, kernel=KERNELS[interpolation])


def _nearest(first: Any, last: Any, size: Any, inside: Any) -> Any:
    """Places (size,) that the middles of the new pixels fall on."""
    step = (last - first) / tf.cast(size, tf.float64)
    places = tf.floor(first + (tf.cast(tf.range(size), tf.float64) + 0.5) * step)
    return tf.clip_by_value(tf.cast(places, tf.int32), 0, inside - 1)


def _along(image: Any, size: tuple[Any, Any], *, axis: int, first: Any, last: Any, kernel: str) -> Any:
    """(h, w, 3) uint8 with one side scaled, from the part of it between `first` and `last`."""
    scale = tf.cast(size[axis], tf.float64) / (last - first)
    scales = [tf.constant(1.0, tf.float64), scale] if axis else [scale, tf.constant(1.0, tf.float64)]
    moves = [tf.zeros((), tf.float64), -first * scale] if axis else [-first * scale, tf.zeros((), tf.float64)]
    levels = tf.raw_ops.ScaleAndTranslate(
        images=tf.expand_dims(image, 0),
        size=tf.stack(size),
        scale=tf.cast(tf.stack(scales), tf.float32),
        translation=tf.cast(tf.stack(moves), tf.float32),
        kernel_type=kernel,
        antialias=True,
    )
    return tf.cast(tf.clip_by_value(tf.floor(levels[0] + 0.5), 0, 255), tf.uint8)
