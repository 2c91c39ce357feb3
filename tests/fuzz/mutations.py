"""Changes to the bytes of a file, each described by three plain values, to be found again.

`change(data, step)` applies one step `(kind, place, value)`: the place as a fraction of the length.
"""

import struct

NUMBERS = (0, 1, -1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**33, 2**62, 2**63 - 1)
WORDS = (
    b"0",
    b"-1",
    b"1e999",
    b"9" * 30,
    b"9" * 5000,
    b"NaN",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"x"',
    b'"../x"',
    b"(" * 400,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"-" * 3000,
    b"- " * 500,
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\r\n",
    b"'",
    b"\\",
    b"&a [*a, *a]",
    b"<<: *a",
    b"!!python/tuple ",
    b"!!python/int ",
    b"!!timestamp 2001-99-99",
    b"!!binary x",
    b"? ",
    b"|O",
    b">f8",
    b"<U0",
    b"|V8",
    b"<M8[s]",
    b"<c16",
    b"<f2",
    b"True",
    b"(1000000000000,)",
    b"(0, 1000000000000)",
    b"(10L,)",
    b"[('a', '<f4', (1000000,))]",
    b"$tensor",
    b"$array",
    b"$partial",
    b"$class",
    b"$strings",
    b"BF16",
    b"F8_E5M2",
    b"/",
    b"..",
)
KINDS = ("flip", "set", "cut", "drop", "repeat", "number", "digits", "word", "instead", "splice")


def change(data, step, donor=b""):
    """Return the data after one step."""
    kind, place, value = step
    at = min(int(place * (len(data) + 1)), max(0, len(data) - 1))
    after = data[at:]
    if kind == "flip":
        return data[:at] + bytes([after[0] ^ (1 + value % 255)]) + after[1:] if after else data
    if kind == "set":
        return data[:at] + bytes([value % 256]) + after[1:]
    if kind == "cut":
        return data[:at]
    if kind == "drop":
        return data[:at] + after[1 + value % 64 :]
    if kind == "repeat":
        return data[:at] + after[: 1 + value % 300] + after
    if kind == "number":
        number, n_bytes = NUMBERS[value % len(NUMBERS)], (1, 2, 4, 8)[value // 16 % 4]
        packed = struct.pack("<q", number)[:n_bytes]
        return data[:at] + packed + after[n_bytes:]
    if kind == "digits":  # the next number in a text
        start = next((i for i, byte in enumerate(after) if 48 <= byte < 58), None)
        if start is None:
            return data
        end = next((i for i in range(start, len(after)) if not 48 <= after[i] < 58), len(after))
        return data[: at + start] + WORDS[value % 12] + after[end:]
    word = WORDS[value % len(WORDS)]
    if kind == "word":
        return data[:at] + word + after
    if kind == "instead":
        return data[:at] + word + after[len(word) :]
    start = value % (len(donor) or 1)
    return data[:at] + donor[start : start + 1 + value % 200] + after[1 + value % 150 :]


def change_all(data, steps, donor=b""):
    """Return the data after several steps."""
    for step in steps:
        data = change(data, step, donor)
    return data


def draw_steps(random):
    """Draw steps from a `random.Random`; one is enough mostly."""
    n_steps = random.choice((1, 1, 1, 2, 3))
    return [
        (random.choice(KINDS), random.random(), random.randrange(2**16)) for _ in range(n_steps)
    ]
