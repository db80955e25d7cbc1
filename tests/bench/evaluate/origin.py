"""What the records of a folder were measured with: SHA-256 of files (the server's program, model, lane table, presets) and of the texts, and the
commit for the reader. Records of one origin are gone on with by the same one only, unless that is asked for; then the page names all.
"""
import hashlib
import json

import documents

FILE = "measured_with.json"
UNKNOWN = {"commit": "unknown", "sha256": {}}


def of(files, commit):
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    sums["texts"] = hashlib.sha256("".join(map("".join, documents.held_out())).encode()).hexdigest()
    return {"commit": commit, "sha256": sums}


def claim(folder, origin, anyway):
    """Origins of what lies in `folder`, this one last. Ends the program where another one measured and it is not to go on `anyway`."""
    path = folder / FILE
    if path.exists():
        origins = json.loads(path.read_text(encoding="utf-8"))
    else:
        origins = [UNKNOWN] if any(folder.glob("*.jsonl")) else []
    if origins and origins[-1]["sha256"] == origin["sha256"]:
        return origins
    if origins and not anyway:
        names = sorted({name for sums in (origins[-1]["sha256"], origin["sha256"]) for name in sums if origins[-1]["sha256"].get(name) != origin["sha256"].get(name)})
        raise SystemExit(f"{folder}: its records were measured with commit {origins[-1]['commit']}; since then these differ: {', '.join(names)}. "
                         "Remove the folder to measure all again, or go on with --resume-anyway; the page then says that it mixes them.")
    origins.append(origin)
    path.write_text(json.dumps(origins, indent=1) + "\n", encoding="utf-8")
    return origins


def page(origins):
    """Markdown: what everything was measured with, and whether the texts are the ones of held_out.json."""
    lines = [f"Measured with commit {one['commit']}, SHA-256 " + ", ".join(f"`{name}` {digest[:12]}" for name, digest in one["sha256"].items()) + "."
             for one in origins]
    if len(origins) > 1:
        lines.insert(0, f"**Records of {len(origins)} origins are mixed here.**")
    if differ := documents.differing():
        lines.append(f"Texts that this Python has otherwise than held_out.json: {', '.join(differ)}. Figures of other pages are of other texts.")
    return "\n".join(lines)
