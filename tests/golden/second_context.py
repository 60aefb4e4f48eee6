"""Context mixing decoded in plain Python, from docs/format.md alone: slow, and nothing shared."""

import struct
from collections import defaultdict
from math import log2, prod


def fine_log(x: int) -> int:
    """log2 in units of 1/256."""
    length = x.bit_length() - 1
    following = (x << 8 >> length) - 256
    return 256 * length + round(256 * log2(1 + following / 256))


ODDS = [
    (1 << 32) // ((1 << 16) + (round(2 ** (16 + x % 256 / 256)) << x // 256)) for x in range(3584)
]


class Coder:
    """The arithmetic decoder."""

    def __init__(self, stream: bytes) -> None:
        self.stream, self.at = stream, 4
        self.low, self.high = 0, (1 << 32) - 1
        self.code = int.from_bytes((stream + bytes(4))[:4], "big")

    def flag(self, chance: int) -> int:
        middle = self.low + ((self.high - self.low) * chance >> 16)
        flag = int(self.code <= middle)
        if flag:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            following = self.stream[self.at] if self.at < len(self.stream) else 0
            self.at += 1
            self.low = self.low % (1 << 24) * 256
            self.high = self.high % (1 << 24) * 256 + 255
            self.code = self.code % (1 << 24) * 256 + following
        return flag


class Kind:
    """Slots and weights of one kind of flag, by their names."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.slots: dict[tuple[int, ...], list[int]] = defaultdict(lambda: [0, 0])
        self.weights: dict[tuple[int, int, int], int] = {}
        self.waiting: list[tuple[int, int, list[tuple[tuple[int, int, int], int]], list]] = []

    def flag(self, coder: Coder, set_: int, node: int, contexts: list[int]) -> int:
        own = self.slots[-1, node]
        z0, o0 = own[0] + 32, own[1] + 32
        u = min(31, max(1, 32 * o0 // (o0 + z0)))
        used = [((set_, -1, 0), fine_log(o0) - fine_log(z0))]
        slots = [own]
        for i, context in enumerate(contexts):
            slot = self.slots[i, node, context]
            bucket = sum(sum(slot) // 64 >= edge for edge in (1, 2, 4, 8, 20, 60, 250))
            odds = fine_log(slot[1] + u) - fine_log(slot[0] + 32 - u)
            used.append(((set_, i, bucket), odds))
            slots.append(slot)
        mix = sum(self.weights.setdefault(w, self.first(w)) * odds for w, odds in used) >> 16
        chance = (1 << 16) - ODDS[min(3583, mix)] if mix >= 0 else ODDS[min(3583, -mix)]
        flag = coder.flag(chance)
        self.waiting.append((flag, (flag << 16) - chance, used, slots))
        return flag

    @staticmethod
    def first(weight: tuple[int, int, int]) -> int:
        return 4000 if weight[1] < 0 else 3600 if weight[2] < 2 else 10800

    def learn(self) -> None:
        for flag, error, used, slots in self.waiting:
            for name, odds in used:
                self.weights[name] += error * odds * self.rate >> 20
            for slot in slots:
                slot[flag] += 64
        for _, _, used, slots in self.waiting:
            for name, _ in used:
                self.weights[name] = max(-(1 << 20), min(1 << 20, self.weights[name]))
            for slot in slots:
                while sum(slot) > 16000:
                    slot[:] = [count - count // 2 for count in slot]
        self.waiting = []


def levels(stream: bytes, shape: list[int], h: int, w: int, z: int, top: dict[bool, int]) -> list:
    """The levels of a CONTEXT stream, flat; ``top`` is the largest magnitude by 'is negative'."""
    rows, columns = (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))
    coder = Coder(stream)
    zero, sign, size = Kind(z), Kind(z), Kind(z)
    q: dict[tuple[int, int], int] = {}
    channel: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    place: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    total = count = 0

    def mean(s: int, k: int) -> int:
        return fine_log(min(65535, 1 + s // (k + 1)))

    for band in range(0, rows, 256):
        row_sum: dict[int, int] = defaultdict(int)
        for diagonal in range(min(256, rows - band) + columns - 1):
            here = [(r, band + diagonal - r) for r in range(band, min(rows, band + 256))]
            weights = []
            for r, c in here:
                if not 0 <= c < columns:
                    continue
                p, i = c % (h * w), c // (h * w)
                x, y = p % w, p // w

                def at(r: int, c: int, inside: bool = True) -> int:
                    return q[r, c] if inside and r >= 0 and c >= 0 else 0

                near = {
                    "left": at(r, c - 1),
                    "left2": at(r, c - 2),
                    "up": at(r - 1, c),
                    "up2": at(r - 2, c),
                    "channel": at(r, c - h * w),
                    "channel2": at(r, c - 2 * h * w),
                    "west": at(r, c - 1, x >= 1),
                    "west2": at(r, c - 2, x >= 2),
                    "north": at(r, c - w, y >= 1),
                    "north2": at(r, c - 2 * w, y >= 2),
                    "northwest": at(r, c - w - 1, x >= 1 and y >= 1),
                    "northeast": at(r, c - w + 1, x + 1 < w and y >= 1),
                }
                m = {name: abs(value) for name, value in near.items()}
                t = 256 * total // (count + 1)
                (si, ni), (sp, np) = channel[i % 4096], place[p % 4096]
                scale = mean(256 * row_sum[r] + t, c) + mean(256 * si + t, ni)
                scale = 6 * (scale + mean(256 * sp + t, np) - 2 * mean(t, 0)) >> 8
                scale = min(127, max(0, scale))
                around = 3 * m["up"] + 2 * (m["left"] + m["channel"] + m["north"])
                around += sum(m[k] for k in ("left2", "up2", "channel2", "west2", "north2"))
                around += m["northwest"] + m["northeast"]
                local = around
                if around >= 12:
                    local = 12 + (6 * (fine_log(min(65535, around)) - fine_log(12)) >> 8)
                    local = min(63, local)
                caps = [min(2, m[k]) for k in ("left", "up", "channel", "north")]
                shared = [scale, 32 * (scale // 3) + local // 2, c % 4096, r % 1024]
                shared.append(sum(3**k * cap for k, cap in enumerate(caps)))
                names = [
                    "west",
                    "north",
                    "northwest",
                    "northeast",
                    "west2",
                    "north2",
                    "up",
                    "up2",
                    "channel",
                ]
                pattern = sum(2**k for k, name in enumerate(names) if near[name])
                set_ = sum(local > edge for edge in (0, 6, 20))
                flag = zero.flag(coder, set_, 0, [*shared, pattern])
                exact = sum(8**k * min(7, m[n]) for k, n in enumerate(("left", "up", "north")))
                weights.append([r, c, flag, near, [*shared, exact]])
            zero.learn()
            for weight in weights:
                r, c, flag, near, _ = weight
                s = {name: (value > 0) * 2 + (value < 0) for name, value in near.items()}
                negative = not top[False]
                if flag and all(top.values()):
                    groups = [
                        ("west", "north", "northwest", "northeast"),
                        ("left", "left2", "up", "up2"),
                        ("channel", "channel2", "north"),
                    ]
                    plane, line, across = (
                        sum(3**k * s[name] for k, name in enumerate(group)) for group in groups
                    )
                    across += 27 * (c % (h * w) % 64)
                    contexts = [plane, r % 1024, c % 4096, line, across]
                    negative = bool(sign.flag(coder, 0, 0, contexts))
                weight.append(negative)
            sign.learn()
            state = {
                k: {"e": 0, "v": 1, "left": None, "t": top[weight[5]].bit_length() - 1}
                for k, weight in enumerate(weights)
                if weight[2]
            }
            for one in state.values():
                if one["t"] == 0:
                    one["left"] = 0
            while any(one["left"] != 0 for one in state.values()):
                for k, one in state.items():
                    contexts = weights[k][4]
                    if one["left"] is None:
                        node = 4 * one["e"]
                        more = size.flag(coder, node, node, contexts)
                        one["e"] += more
                        if not more or one["e"] == one["t"]:
                            one["left"] = one["e"]
                    elif one["left"]:
                        node = 4 * one["e"] + one["v"]
                        low = one["v"] < 4
                        bit = size.flag(coder, node, node, contexts) if low else coder.flag(1 << 15)
                        one["v"] = 2 * one["v"] + bit
                        one["left"] -= 1
                size.learn()
            for k, (r, c, flag, _, _, negative) in enumerate(weights):
                a = state[k]["v"] if flag else 0
                assert a <= top[negative] or not flag
                q[r, c] = -a if negative else a
                row_sum[r] += a
                for table, key in ((channel, c // (h * w) % 4096), (place, c % (h * w) % 4096)):
                    table[key][0] += a
                    table[key][1] += 1
                total, count = total + a, count + 1
    dropped = coder.at - 4
    rest = bytes([(coder.low >> 24) + 1]) if coder.low else b""
    assert stream[dropped:] == rest
    assert len(stream) == dropped + len(rest)
    return [q[r, c] for r in range(rows) for c in range(columns)]


def order(book: list[float]) -> list[int]:
    """The level of each index, the pruned weight's 0 first."""
    bits = [struct.unpack("<I", struct.pack("<f", value))[0] for value in book]
    found = [0] * (len(book) + 1)
    for negative in (False, True):
        ranked = sorted((bit, i) for i, bit in enumerate(bits) if (bit >> 31 == 1) == negative)
        for rank, (_, i) in enumerate(ranked, 1):
            found[i + 1] = -rank if negative else rank
    return found
