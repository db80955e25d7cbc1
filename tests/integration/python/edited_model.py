"""A copy of the model's file with something changed in place, as no program writes it."""
import contextlib
import math
import mmap
import os
import shutil
import struct

STRING, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of GGUF's other types
ALIGNMENT = 32


class EditedModel:
    def __init__(self, data):
        self.data = data
        tensors, keys = struct.unpack_from("<QQ", data, 8)
        at, self.values, offsets = 24, {}, {}
        for _ in range(keys):
            name, at = self.text(at)
            self.values[name] = at + 4
            at = self.after(at + 4, *struct.unpack_from("<I", data, at))
        for _ in range(tensors):
            name, at = self.text(at)
            at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 4
            offsets[name] = struct.unpack_from("<Q", data, at)[0]
            at += 8
        begin = -(-at // ALIGNMENT) * ALIGNMENT
        self.tensors = {name: begin + offset for name, offset in offsets.items()}

    def text(self, at):
        """A name, and where it ends."""
        end = self.after(at, STRING)
        return self.data[at + 8:end].decode(), end

    def after(self, at, kind):
        """Where a value ends."""
        if kind == STRING:
            return at + 8 + struct.unpack_from("<Q", self.data, at)[0]
        if kind != ARRAY:
            return at + SIZES[kind]
        element, count = struct.unpack_from("<IQ", self.data, at)
        at += 12
        if element != STRING:
            return at + count * SIZES[element]
        for _ in range(count):
            at = self.after(at, STRING)
        return at

    def lose(self, key):
        """The key goes under another name from now on."""
        end = self.values.pop(key) - 4
        self.data[end - 1:end] = b"~"

    def set_text(self, key, text):
        begin, end = self.values[key] + 8, self.after(self.values[key], STRING)
        self.data[begin:end] = text.encode().ljust(end - begin)

    def spoil(self, tensor):
        """The first number of a tensor of float32 is none from now on."""
        struct.pack_into("<f", self.data, self.tensors[tensor], math.nan)


@contextlib.contextmanager
def edited_model(path):
    shutil.copyfile(os.environ["PKV_MODEL"], path)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        yield EditedModel(data)
