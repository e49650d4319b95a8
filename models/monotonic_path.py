"""The cheapest way of characters through frames, by dynamic programming."""

import tensorflow as tf

DIAGONAL = 4.0
"""λ, the weight of an even division of the time."""


def best_path(costs, characters, frames):
    """Return the cheapest monotonic path of characters through frames.

    The path begins at the first character, stays or goes on by one in each frame, and
    ends at the last; an even division of the time is favoured (`DIAGONAL`).

    Args:
        costs: float [batch, T, J], of each character at each frame.
        characters: int32 [batch], how many of the J are there, at least 1.
        frames: int32 [batch], how many of the T are, at least `characters`.

    Returns:
        int32 [batch, T], the character of each frame; behind the last frame, the last.
    """
    costs = tf.cast(costs, tf.float32)
    characters, frames = tf.cast(characters, tf.int32), tf.cast(frames, tf.int32)
    _, length, width = tf.unstack(tf.shape(costs))
    row = tf.range(length, dtype=tf.int32)
    column = tf.range(width, dtype=tf.int32)
    share_of = [
        (tf.cast(places, tf.float32) + 0.5) / tf.cast(counts, tf.float32)[:, None]
        for places, counts in ((row, frames), (column, characters))
    ]
    gap = share_of[0][:, :, None] - share_of[1][:, None, :]
    far = column[None] >= characters[:, None]
    costs = costs + DIAGONAL * tf.square(gap) + tf.where(far, 1e9, 0.0)[:, None]
    by_time = tf.transpose(costs, [1, 0, 2])
    first = tf.where(column == 0, by_time[0], 1e9)

    def forward(carried, now):
        total, _ = carried
        moved = tf.pad(total[:, :-1], [[0, 0], [1, 0]], constant_values=1e9)
        return tf.minimum(total, moved) + now, moved < total

    none = tf.zeros(tf.shape(first), tf.bool)
    _, came = tf.scan(forward, by_time[1:], (first, none))
    last = characters - 1

    def backward(place, step):
        moved, time = step
        here = tf.gather(moved, place, batch_dims=1)
        inside = time < frames  # behind the end it rests at the last character
        return place - tf.cast(here & inside, tf.int32)

    places = tf.scan(backward, (came, row[1:]), last, reverse=True)
    return tf.transpose(tf.concat([places, last[None]], axis=0))
