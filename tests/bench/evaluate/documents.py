"""The documents that nothing was tuned on: pages of Python's language reference and modules of its library, which every Debian has.

Neither a policy's rules nor a lane table have seen them: those were made from licences, RFCs and pages of this repository.
held_out.json has the SHA-256 of each as Python 3.11.7 has it; another version has some of them otherwise.
"""
import hashlib
import json
import pathlib
import sysconfig
from pydoc_data.topics import topics

MOST_BYTES = 8000  # about 2,000 tokens


def entries():
    return json.loads((pathlib.Path(__file__).parent / "held_out.json").read_text(encoding="utf-8"))


def held_out():
    """[(name, text, question)]"""
    return [(entry["name"], text_of(entry["name"]), entry["question"]) for entry in entries()]


def differing():
    """Names of the texts that are not those of held_out.json."""
    return [entry["name"] for entry in entries() if hashlib.sha256(text_of(entry["name"]).encode()).hexdigest() != entry["sha256"]]


def text_of(name):
    if name.endswith(".py"):
        whole = (pathlib.Path(sysconfig.get_path("stdlib")) / name).read_text(encoding="utf-8")
    else:
        whole = topics[name].strip()
    return whole.encode()[:MOST_BYTES].decode(errors="ignore")
