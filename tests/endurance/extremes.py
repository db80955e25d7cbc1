"""Numbers at the ends of what they can be, in every place of a request that has one: as protobuf's bytes, those among them that no
client library would send, and as JSON."""
import itertools
import json
import math
import struct

from google.protobuf.descriptor import FieldDescriptor as Field

FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e-30, 3e38)
# Of 64 bits, whatever the field takes of them: the upper half is negative to those with a sign.
WHOLE = (0, 1, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
CHOICES = (0, 99, 2**31 - 1, 2**64 - 1)
TEXT = (Field.TYPE_STRING, Field.TYPE_BYTES)
VARINTS = {Field.TYPE_INT32: WHOLE, Field.TYPE_INT64: WHOLE, Field.TYPE_UINT32: WHOLE, Field.TYPE_UINT64: WHOLE, Field.TYPE_ENUM: CHOICES,
           Field.TYPE_BOOL: CHOICES}
FIXED = {Field.TYPE_FLOAT: (5, "<f"), Field.TYPE_DOUBLE: (1, "<d")}  # wire type and layout

# Which JSON has, whether or not a field takes them.
NUMBERS = ("0", "1", "-1", "-0.0", "1.5", "1e-999", "3.5e38", "1e308", "2147483647", "2147483648", "-2147483649", "4294967295", "4294967296",
           "9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616")
# No number that a field could mean, or none at all.
NO_NUMBERS = ("1e999", "-1e999", "1" + "0" * 400, "9" * 100_000, "NaN", "Infinity", "-Infinity", "nan", '"NaN"', '"Infinity"', '"-Infinity"', "+1", "01", "1.",
              ".5", "0x10", "1e", "{}")
PLACE = "@"  # of the number, in what json_places() gives


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def tag(field, wire_type):
    return varint(field.number << 3 | wire_type)


def values_of(field):
    """(value, its bytes with the field's tag) of a field that is no message."""
    if field.type in FIXED:
        wire_type, layout = FIXED[field.type]
        return [(value, tag(field, wire_type) + struct.pack(layout, value)) for value in FLOATS]
    return [] if field.type in TEXT else [(value, tag(field, 0) + varint(value)) for value in VARINTS[field.type]]


def wire_values(descriptor):
    """(path, value, bytes that set it behind a message of this type) for every number below it. Of a map's entries every key
    with every value."""
    if descriptor.GetOptions().map_entry:
        keys, values = (values_of(field) for field in descriptor.fields)
        for (key, key_bytes), (value, value_bytes) in itertools.product(keys, values):
            yield f"[{key}]", value, key_bytes + value_bytes
        return
    for field in descriptor.fields:
        if field.message_type is None:
            for value, data in values_of(field):
                yield field.name, value, data
            continue
        for path, value, data in wire_values(field.message_type):
            yield f"{field.name}.{path}", value, tag(field, 2) + varint(len(data)) + data


def json_places(descriptor):
    """An object for every number below a message type, in proto3 JSON, with PLACE where it stands."""
    for field in descriptor.fields:
        if field.message_type is not None:
            for inner in json_places(field.message_type):
                yield {field.name: [inner] if field.label == Field.LABEL_REPEATED else inner}
        elif field.type not in TEXT:
            yield {field.name: PLACE}


def json_body(fields, literal):
    """What json has no way to write: the literal as it is, as a key in quotes."""
    return json.dumps(fields).replace(f'"{PLACE}":', f"{json.dumps(literal)}:").replace(f'"{PLACE}"', literal)
