"""One layout for an ``.ort`` file, whatever order ONNX Runtime happened to write it in.

The file is a flatbuffer (schema: ONNX Runtime's ``core/flatbuffers/schema/ort.fbs``)::

    InferenceSession        0 ort_version: string   1 model: Model   3 resolver
    KernelTypeStrResolver   0 [OpIdKernelTypeStrArgsEntry]
    OpIdKernelTypeStrArgsEntry   0 op_id: string   1 [KernelTypeStrArgsEntry]
    KernelTypeStrArgsEntry       0 type: string    1 [ArgTypeAndIndex]
    ArgTypeAndIndex              0 kind: int8      1 index: uint32

The resolver, which tells a build without operator schemas what kernel an operator needs, is laid
out in the order of hash maps that are seeded anew in every call: the content is the same, the
first kilobyte of the file is not. The model, with graph and weights, stands behind it and never
changes. So the resolver is read, and written before the model in the order of its entries.
"""

import struct

IDENTIFIER = b"ORTM"
ALIGNMENT = 16  # of the whole: what lies in the model keeps its distance from the end
KNOWN_FIELDS = {0, 1, 3}


def settled(file: bytes) -> bytes:
    """The same content in one layout; a file with fields unknown here is given back as it is."""
    source = _Source(file)
    session = source.follow(0)
    if source.fields(session) != KNOWN_FIELDS:
        return file
    model = source.follow(source.cell(session, 1))
    begin = min(model, source.vtable(model))
    front = _Front(len(file) - begin)
    resolver = front.references(_resolver(source, source.follow(source.cell(session, 3)), front))
    version = front.string(source.string(source.cell(session, 0)))
    root = front.references(version, len(file) - model, None, resolver)
    return front.finished(root) + file[begin:]


def _resolver(source: "_Source", resolver: int, front: "_Front") -> int:
    operators = []
    for operator in source.vector(source.cell(resolver, 0)):
        types = []
        for item in source.vector(source.cell(operator, 1)):
            arguments = [
                front.scalars(source.byte(argument, 0), source.word(argument, 1))
                for argument in source.vector(source.cell(item, 1))
            ]
            name = front.string(source.string(source.cell(item, 0)))
            types.append(front.references(name, front.vector(arguments)))
        name = front.string(source.string(source.cell(operator, 0)))
        operators.append(front.references(name, front.vector(types)))
    return front.vector(operators)


class _Source:
    """Reads a flatbuffer; positions count from its beginning."""

    def __init__(self, file: bytes) -> None:
        self.file = file

    def follow(self, cell: int) -> int:
        return cell + self._unpack("<I", cell)

    def vtable(self, table: int) -> int:
        return table - self._unpack("<i", table)

    def fields(self, table: int) -> set[int]:
        slots = (self._unpack("<H", self.vtable(table)) - 4) // 2
        return {slot for slot in range(slots) if self._offset(table, slot)}

    def cell(self, table: int, slot: int) -> int:
        return table + self._offset(table, slot)

    def byte(self, table: int, slot: int) -> int:
        """A scalar; one that is absent is its default, 0."""
        return self._unpack("<b", self.cell(table, slot)) if self._offset(table, slot) else 0

    def word(self, table: int, slot: int) -> int:
        return self._unpack("<I", self.cell(table, slot)) if self._offset(table, slot) else 0

    def vector(self, cell: int) -> list[int]:
        """The tables of a vector of tables."""
        begin = self.follow(cell)
        return [self.follow(begin + 4 + 4 * i) for i in range(self._unpack("<I", begin))]

    def string(self, cell: int) -> bytes:
        begin = self.follow(cell)
        return self.file[begin + 4 : begin + 4 + self._unpack("<I", begin)]

    def _offset(self, table: int, slot: int) -> int:
        vtable = self.vtable(table)
        inside = 4 + 2 * slot < self._unpack("<H", vtable)
        return self._unpack("<H", vtable + 4 + 2 * slot) if inside else 0

    def _unpack(self, form: str, position: int) -> int:
        value: int = struct.unpack_from(form, self.file, position)[0]
        return value


class _Front:
    """Writes before ``behind`` bytes that stay; positions count from the end of the file.

    A reference leads from its cell towards the end, so what is referred to is written first.
    """

    def __init__(self, behind: int) -> None:
        self.size = behind
        self.parts: list[bytes] = []
        self._put(bytes(-behind % 4))

    def string(self, text: bytes) -> int:
        return self._put(struct.pack("<I", len(text)) + text + bytes(4 - len(text) % 4))

    def vector(self, targets: list[int]) -> int:
        end = self.size + 4 * len(targets)
        cells = [end - 4 * i - target for i, target in enumerate(targets)]
        return self._put(struct.pack(f"<I{len(cells)}I", len(cells), *cells))

    def references(self, *targets: int | None) -> int:
        """A table of references, or of nothing where there is None."""
        present = [target for target in targets if target is not None]
        end = self.size + 4 * len(present)
        cells = [end - 4 * i - target for i, target in enumerate(present)]
        return self._table([target is not None for target in targets], cells)

    def scalars(self, *values: int) -> int:
        """A table of scalars of up to four bytes, none of them negative."""
        return self._table([True] * len(values), list(values))

    def finished(self, root: int) -> bytes:
        """Everything before what stays: the reference to the root, the identifier, the rest."""
        self._put(bytes(-(self.size + 8) % ALIGNMENT))
        self._put(struct.pack("<I4s", self.size + 8 - root, IDENTIFIER))
        return b"".join(reversed(self.parts))

    def _table(self, present: list[bool], cells: list[int]) -> int:
        offsets, at = [], 4
        for there in present + [False] * (len(present) % 2):  # even, so that the table is aligned
            offsets.append(at if there else 0)
            at += 4 * there
        body = struct.pack(f"<{1 + len(cells)}I", 4 + 2 * len(offsets), *cells)
        table = self._put(body)
        self._put(struct.pack(f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), at, *offsets))
        return table

    def _put(self, part: bytes) -> int:
        self.parts.append(part)
        self.size += len(part)
        return self.size
