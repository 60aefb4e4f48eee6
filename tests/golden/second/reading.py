"""Numbers, texts and strings of bits, front to back."""

import struct


class Refused(Exception):
    """The document forbids this."""


def require(condition: object, what: str) -> None:
    """Refuse unless ``condition`` holds; an assert would not survive ``python -O``."""
    if not condition:
        raise Refused(what)


class Bytes:
    """Bytes being read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        require(count <= len(self.data) - self.at, "fewer bytes than the parts need")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def end(self) -> None:
        require(self.at == len(self.data), "more bytes than the parts need")

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int(struct.unpack("<H", self.take(2))[0])

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            require(shift < 64, "a varint of 2^64 or more")
        require(value < 1 << 64, "a varint of 2^64 or more")
        require(byte or not shift, "a superfluous zero byte")
        return value

    def text(self) -> str:
        try:
            return self.take(self.varint()).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("a text that is not UTF-8") from None


class Bits:
    """A string of bits, each byte's most significant bit first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bit(self) -> int:
        byte, place = divmod(self.at, 8)
        require(byte < len(self.data), "fewer bits than there must be")
        self.at += 1
        return self.data[byte] >> (7 - place) & 1

    def number(self, width: int) -> int:
        value = 0
        for _ in range(width):
            value = 2 * value + self.bit()
        return value

    def gamma(self, order: int = 0) -> int:
        """A number of at least 1."""
        zeros = 0
        while not self.bit():
            zeros += 1
        first = (1 << zeros) + self.number(zeros)
        return 1 + ((first - 1) << order) + self.number(order)

    def padded(self) -> int:
        """The whole bytes that were read; what was not, of the last, must be zeros."""
        while self.at % 8:
            require(not self.bit(), "padding that is not zero")
        return self.at // 8

    def end(self) -> None:
        require(self.padded() == len(self.data), "more bytes than the bits need")


def step(number: int) -> int:
    """The difference that a number of a table's levels or lengths stands for; 4 has none."""
    if number <= 3:
        return (0, 1, -1)[number - 1]
    d = (number - 1) // 2
    return d if number % 2 else -((number - 2) // 2)
