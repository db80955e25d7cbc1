"""The documents that nothing was tuned on: pages of Python's language reference and modules of its library, which every Debian has.

Neither a policy's rules nor a lane table have seen them: those were made from licences, RFCs and pages of this repository.
"""
import json
import pathlib
import sysconfig
from pydoc_data.topics import topics

MOST_BYTES = 8000  # about 2,000 tokens


def held_out():
    """[(name, text, question)]"""
    entries = json.loads((pathlib.Path(__file__).parent / "held_out.json").read_text(encoding="utf-8"))
    return [(entry["name"], text_of(entry["name"]), entry["question"]) for entry in entries]


def text_of(name):
    if name.endswith(".py"):
        whole = (pathlib.Path(sysconfig.get_path("stdlib")) / name).read_text(encoding="utf-8")
    else:
        whole = topics[name].strip()
    return whole.encode()[:MOST_BYTES].decode(errors="ignore")
