"""Counter-based normal noise in plain arithmetic, to be fused with what uses it.

`ops.noise` draws with TensorFlow's random operations. Under XLA on a CPU those write
all their bits to memory and are not vectorized with what follows; here each number is
a function of its own index, so that a sum over members never stores their noise. The
integers are the same to the bit on all devices, the floats within rounding.

This file needs TensorFlow: `keras.ops` has no 64-bit unsigned products.
"""

import math
from typing import Any

import tensorflow as tf

MULTIPLIER, KEY_STEP, ROUNDS = 0xD256D193, 0x9E3779B9, 10


def philox2x32(first, second, key):
    """Scramble a counter of two 32-bit words.

    Each of ten rounds maps (a, b) to (high(M a) xor k xor b, low(M a)), then
    k += 0x9E3779B9.

    Args:
        first: uint32 tensor, the word that differs within a draw.
        second: uint32 tensor, broadcast against it.
        key: uint32 tensor, broadcast against both.

    Returns:
        Two uint32 tensors of random bits.

    Example:

    >>> words = philox2x32(*(tf.zeros((), tf.uint32) for _ in range(3)))
    >>> [hex(int(word)) for word in words]
    ['0xff1dae59', '0x6cd10df2']

    References:
        Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    shape = tf.broadcast_static_shape(first.shape, second.shape)
    shape = tf.broadcast_static_shape(shape, key.shape)
    return tuple(tf.ensure_shape(w, shape) for w in _rounds(first, second, key))


# A function of its own is traced once and for all, and not for each weight.
@tf.function(autograph=False, input_signature=[tf.TensorSpec(None, tf.uint32)] * 3)
def _rounds(first, second, key):
    xor = tf.bitwise.bitwise_xor
    for _ in range(ROUNDS):
        product = tf.cast(first, tf.uint64) * tf.constant(MULTIPLIER, tf.uint64)
        high = tf.cast(tf.bitwise.right_shift(product, _word(32, 64)), tf.uint32)
        low = tf.cast(product, tf.uint32)
        first, second = xor(xor(high, key), second), low
        key = key + _word(KEY_STEP)
    return first, second


def stream(key, generation, pair):
    """Return the (second counter word, key word) of one draw.

    Args:
        key: Python integer from `noise.stream_key`, 63 bits; or a list of them.
        generation: Integer tensor or int, below 2**63.
        pair: Integer tensor or int, below 2**32; of any shape.

    Returns:
        Two uint32 tensors of the shape of `pair`, for a list [keys, *that].
    """
    generation = tf.cast(generation, tf.uint64)
    old = tf.cast(tf.bitwise.right_shift(generation, _word(32, 64)), tf.uint32)
    low, high = _halves(key)
    if isinstance(key, list):
        pair = tf.convert_to_tensor(pair)
        low, high = (tf.reshape(w, (-1, *[1] * pair.shape.rank)) for w in (low, high))
    a, b = philox2x32(tf.cast(generation, tf.uint32), tf.cast(pair, tf.uint32), low)
    xor = tf.bitwise.bitwise_xor
    return philox2x32(xor(a, high), xor(b, old), low)


def _halves(keys):
    each = keys if isinstance(keys, list) else [keys]
    halves = [k & 0xFFFFFFFF for k in each], [k >> 32 for k in each]
    return [_word(h if isinstance(keys, list) else h[0]) for h in halves]


def bits(shape, position):
    """Return two uint32 tensors of random bits.

    Args:
        shape: Static shape with fewer than 2**32 entries.
        position: What `stream` returned for one draw.
    """
    index = tf.reshape(tf.cast(tf.range(math.prod(shape)), tf.uint32), shape)
    return philox2x32(index, *position)


def normal(shape, position):
    """Draw standard normal noise: sqrt(-2 ln u) cos(2 pi v), u in (0, 1].

    The sine that Box and Muller have from the same u, v is not used: a second result
    would have to be computed twice or kept.

    Args:
        shape: Static shape.
        position: What `stream` returned for one draw.

    Returns:
        float32 tensor.
    """
    words = bits(shape, position)
    return tf.ensure_shape(_normal_of(*words), words[0].shape)


def normal_at(entries, position):
    """Draw some entries of what `normal` draws, and no others.

    Args:
        entries: Integer tensor, indices into the flat result of `normal`.
        position: See `normal`.

    Returns:
        float32 tensor of their shape, broadcast against `position`.
    """
    words = philox2x32(tf.cast(entries, tf.uint32), *position)
    return tf.ensure_shape(_normal_of(*words), words[0].shape)


@tf.function(autograph=False, input_signature=[tf.TensorSpec(None, tf.uint32)] * 2)
def _normal_of(first, second):
    return tf.sqrt(-2.0 * tf.math.log(1.0 - fraction(first))) * cos_of_turn(second)


def fraction(word):
    """Return a word as a number in [0, 1), by its upper 24 bits."""
    top = _signed(tf.bitwise.right_shift(word, _word(8)))
    return tf.cast(top, tf.float32) * 2.0**-24


def uniform(shape, position):
    """Draw uniform noise in [0, 1), float32 of the given static shape."""
    first, _ = bits(shape, position)
    return fraction(first)


def signs(shape, position):
    """Draw +1 and -1 with equal chance, float32 of the given static shape."""
    first, _ = bits(shape, position)
    top = _signed(tf.bitwise.right_shift(first, _word(31)))
    return 1.0 - 2.0 * tf.cast(top, tf.float32)


def packed_signs(shape, position):
    """Draw +1 and -1 with equal chance, 64 from each evaluation of Philox.

    Args:
        shape: Shape of one draw, a tuple or an integer vector.
        position: What `stream` returned for some draws, two tensors [draws].

    Returns:
        float32 tensor [draws, *shape].
    """
    size = _size(shape)
    index = tf.range((size + 63) // 64)[None]
    second, key = (word[:, None] for word in position)
    words = philox2x32(tf.cast(index, tf.uint32), second, key)
    return _unpacked(tf.concat(words, axis=1), size, shape, position)


def packed_signs_of(shapes, positions):
    """Draw signs for some shapes, those that `packed_signs` draws, all at once.

    One evaluation of Philox is a thousand operations of a program. Shapes of as many
    entries share it, which a deep model compiles many times faster.

    Args:
        shapes: List of static shapes.
        positions: What `stream` returned for each, two tensors [shapes, draws].

    Returns:
        List of float32 tensors [draws, *shape].
    """
    sizes = [_size(shape) for shape in shapes]
    found: list[Any] = [None] * len(sizes)
    for size in dict.fromkeys(sizes):
        own = [i for i, other in enumerate(sizes) if other == size]
        second, key = (tf.gather(word, own)[..., None] for word in positions)
        index = tf.cast(tf.range((size + 63) // 64), tf.uint32)
        words = tf.concat(philox2x32(index, second, key), axis=-1)
        for i, word in zip(own, tf.unstack(words)):
            position = [word[i] for word in positions]
            found[i] = _unpacked(word, size, shapes[i], position)
    return found


def _unpacked(words, size, shape, position):
    """Return the bits of words [draws, n] as signs [draws, *shape]."""
    words = words[..., None]
    found = tf.bitwise.right_shift(words, tf.cast(tf.range(32), tf.uint32))
    found = tf.cast(tf.bitwise.bitwise_and(found, _word(1)), tf.int32)
    flat = tf.reshape(found, (_draws(position), -1))[:, :size]
    return _shaped(1.0 - 2.0 * tf.cast(flat, tf.float32), shape, position)


def normals(shape, position):
    """Draw standard normal noise, as `normal`, of shapes that need not be static.

    Args:
        shape: See `packed_signs`.
        position: See `packed_signs`.

    Returns:
        float32 tensor [draws, *shape].
    """
    index = tf.cast(tf.range(_size(shape)), tf.uint32)[None]
    words = philox2x32(index, *(word[:, None] for word in position))
    return _shaped(_normal_of(*words), shape, position)


def _size(shape):
    """Return the number of entries: a Python integer, or a scalar tensor."""
    return tf.reduce_prod(shape) if tf.is_tensor(shape) else math.prod(shape)


def _draws(position):
    known = position[0].shape[0]
    return tf.shape(position[0])[0] if known is None else known


def _shaped(flat, shape, position):
    shape = tf.cast(shape, tf.int32)  # that of a scalar has no type
    return tf.reshape(flat, tf.concat([[_draws(position)], shape], axis=0))


def kept(function, generation):
    """Return the tensors of a function, computed once and kept, also under XLA.

    XLA fuses cheap noise with what uses it and would draw it anew for every example
    that it is multiplied with. Nothing is fused across the border of a loop; this one
    runs once, but as the count hangs on the generation, XLA cannot know.

    Args:
        function: Called without arguments; returns a structure of tensors.
        generation: Integer scalar of at least 0, not a constant.
    """
    once = 1 + tf.minimum(tf.cast(generation, tf.int32), 0)
    called = tf.function(function, autograph=False).get_concrete_function()
    empty = tf.nest.map_structure(
        lambda s: tf.zeros(s.shape, s.dtype), called.structured_outputs
    )
    return tf.while_loop(
        lambda i, _: i < once, lambda i, _: (i + 1, called()), (0, empty)
    )[1]


def cos_of_turn(turn):
    """Return cos(2 pi t / 2**32 - pi/4) of 32-bit integers t, by quadrant and series.

    Library cosines are not vectorized under XLA on a CPU. On [-pi/4, pi/4] the
    Taylor series of sine and cosine to the ninth power are within 3e-8 in exact
    arithmetic. The quadrant is the top two bits, the angle in it the middle of what the
    next 23 bits leave open.

    Args:
        turn: uint32 tensor.

    Returns:
        float32 tensor, within 3e-7.
    """
    return cos_and_sin_of_turn(turn)[0]


def cos_and_sin_of_turn(turn):
    """Return cos(2 pi t / 2**32 - pi/4), as `cos_of_turn`, and the sine of the same.

    Args:
        turn: uint32 tensor.

    Returns:
        Two float32 tensors.
    """
    quadrant = _signed(tf.bitwise.right_shift(turn, _word(30)))
    rest = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(turn, _word(7)), _word(0x7FFFFF)
    )
    part = tf.cast(_signed(rest), tf.float32) * 2.0**-23 + (2.0**-24 - 0.5)
    angle = part * (math.pi / 2.0)
    square = angle * angle
    sine = angle * _series(square, (1, -6, 120, -5040, 362880))
    cosine = _series(square, (1, -2, 24, -720, 40320))
    # cos(q pi/2 + a) and sin(q pi/2 + a)
    odd, low = tf.bitwise.bitwise_and(quadrant, 1) > 0, quadrant < 2
    first, second = tf.where(odd, -sine, cosine), tf.where(odd, cosine, sine)
    return tf.where(low, first, -first), tf.where(low, second, -second)


def _series(x, denominators):
    total = tf.zeros_like(x)
    for denominator in reversed(denominators):
        total = total * x + 1.0 / denominator
    return total


def _word(value, size=32):
    return tf.constant(value, tf.uint32 if size == 32 else tf.uint64)


def _signed(word):
    # XLA has no vector conversion from unsigned integers to floats on older CPUs.
    return tf.cast(word, tf.int32)
