#!/usr/bin/env python3
"""Prints character_tables.h from Python's own Unicode tables. Usage: make_character_tables.py > character_tables.h"""
import unicodedata

CODES = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def ranges(mapping):
    """(first, last, step, delta) of neighbours with one distance, every code or every second one."""
    out = []
    for code, to in sorted(mapping.items()):
        delta = to - code
        if out:
            first, last, step, d = out[-1]
            if d == delta and code - last in (1, 2) and (first == last or step == code - last):
                out[-1] = (first, code, code - last, d)
                continue
        out.append((code, code, 1, delta))
    return out


def table(kind, name, rows):
    print(f"inline constexpr {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        if len(line) + len(row) + 2 > 118:
            print(line)
            line = "   "
        line += " " + row + ","
    print(line + "};\n")


lower = {c: ord(chr(c).lower()) for c in CODES if len(chr(c).lower()) == 1 and chr(c).lower() != chr(c)}
upper = {c: ord(chr(c).upper()) for c in CODES if len(chr(c).upper()) == 1 and chr(c).upper() != chr(c)}
long_upper = {c: chr(c).upper() for c in CODES if len(chr(c).upper()) > 1}
hidden = [c for c in CODES if not chr(c).isprintable() and unicodedata.category(chr(c)) != "Cn"]
blocks = []
for c in hidden:
    if blocks and blocks[-1][1] == c - 1:
        blocks[-1][1] = c
    else:
        blocks.append([c, c])

print(f"""// Made by make_character_tables.py from Unicode {unicodedata.unidata_version}; not to be edited.
#pragma once

#include <cstdint>
#include <string_view>

namespace pkv::jinja {{

struct CaseRange {{
  uint32_t first, last, step;
  int32_t delta;
}};
struct LongUpper {{
  uint32_t code;
  std::string_view upper;
}};
struct CodeRange {{
  uint32_t first, last;
}};

// clang-format off""")
table("CaseRange", "kToLower", [f"{{{a},{b},{s},{d}}}" for a, b, s, d in ranges(lower)])
table("CaseRange", "kToUpper", [f"{{{a},{b},{s},{d}}}" for a, b, s, d in ranges(upper)])
table("LongUpper", "kToUpperLong",
      ["{%d,\"%s\"}" % (c, "".join(f"\\x{b:02x}\"\"" for b in u.encode())) for c, u in sorted(long_upper.items())])
table("CodeRange", "kNotPrintable", [f"{{{a},{b}}}" for a, b in blocks])
print("""// clang-format on

}  // namespace pkv::jinja""")
