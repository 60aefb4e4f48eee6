"""Chances of flags: slots, mixing, learning; and the arithmetic code that flags are read from."""

from collections import defaultdict
from math import log2

from tests.golden.second.reading import require

Weight = tuple[int, int, int]
"""Set, input (-1 is the own slot), bucket."""


def fine_log(x: int) -> int:
    """log2 in units of 1/256, by the 8 bits after the first."""
    b = x.bit_length() - 1
    following = (x << 8 >> b) - 256
    return 256 * b + round(256 * log2(1 + following / 256))


Q = [(1 << 32) // ((1 << 16) + (round(2 ** (16 + x % 256 / 256)) << x // 256)) for x in range(3584)]


class ArithmeticCode:
    """A stream of flags."""

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

    def end(self) -> None:
        dropped = self.at - 4
        last = bytes([(self.low >> 24) + 1]) if self.low else b""
        require(len(self.stream) == dropped + len(last), "a stream of another length")
        require(self.stream[dropped:] == last, "a stream that does not end as it must")


class Kind:
    """Slots and weights of one kind of flag, and the flags that wait to be learnt."""

    def __init__(self, code: ArithmeticCode, rate: int) -> None:
        self.code, self.rate = code, rate
        self.slots: dict[tuple[int, ...], list[int]] = defaultdict(lambda: [0, 0])
        self.weights: dict[Weight, int] = {}
        self.waiting: list[tuple[int, int, list[tuple[Weight, int]], list[list[int]]]] = []

    def flag(self, set_: int, node: int, contexts: list[int]) -> int:
        """The next flag."""
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
        mix = sum(self.weights.setdefault(w, at_start(w)) * odds for w, odds in used) >> 16
        chance = (1 << 16) - Q[min(3583, mix)] if mix >= 0 else Q[min(3583, -mix)]
        flag = self.code.flag(chance)
        self.waiting.append((flag, (flag << 16) - chance, used, slots))
        return flag

    def learn(self) -> None:
        """Learn from all flags of a stage or a round."""
        for flag, error, used, slots in self.waiting:
            for weight, odds in used:
                self.weights[weight] += error * odds * self.rate >> 20
            for slot in slots:
                slot[flag] += 64
        for _, _, used, slots in self.waiting:
            for weight, _ in used:
                self.weights[weight] = max(-(1 << 20), min(1 << 20, self.weights[weight]))
            for slot in slots:
                while sum(slot) > 16000:
                    slot[:] = [count - count // 2 for count in slot]
        self.waiting = []


def at_start(weight: Weight) -> int:
    """What a weight is before anything was learnt."""
    _, of, bucket = weight
    return 4000 if of < 0 else 3600 if bucket < 2 else 10800
