"""Writes deploy/grafana/dashboards/*.json from the Python beside it; with --check only says whether what is there is up to date."""
import argparse
import pathlib
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder

import cache
import overview

FOLDER = pathlib.Path(__file__).parent / "dashboards"


def generated():
    """File name -> text of every dashboard."""
    return {module.UID + ".json": JSONEncoder(sort_keys=True, indent=2).encode(module.build()) + "\n" for module in (overview, cache)}


def drift():
    """What is wrong with the committed files, a line each."""
    texts = generated()
    found = [f"{path.name} is made by no module" for path in FOLDER.glob("*.json") if path.name not in texts]
    for name, text in texts.items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            found.append(f"{name} is not what the modules make; run scripts/dashboards and commit")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        found = drift()
        print("\n".join(found) or "dashboards are up to date", file=sys.stderr if found else sys.stdout)
        return 1 if found else 0
    FOLDER.mkdir(exist_ok=True)
    for name, text in generated().items():
        (FOLDER / name).write_text(text)
        print(f"wrote deploy/grafana/dashboards/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
