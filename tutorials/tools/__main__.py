"""`python -m tutorials.tools build [NN ...]`, `reword [NN ...]`, `check`, `pages [FOLDER]`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tutorials.tools.notebook import FOLDER, find, mismatches, reword, write


def main() -> None:
    """Read the command line and do what it says; a tutorial that is out of step ends with exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m tutorials.tools", description="Run, check and render the tutorials.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="run tutorials and write their notebooks")
    words = verbs.add_parser("reword", help="bring changed words into notebooks whose code has not changed, without running them")
    for verb in (build, words):
        verb.add_argument("names", nargs="*", help="starts of file names, 00 03; all by default")
    verbs.add_parser("check", help="say which notebooks are not in step with their Python files")
    pages = verbs.add_parser("pages", help="write the documentation's pages from the notebooks, without running them")
    pages.add_argument("folder", nargs="?", type=Path, default=FOLDER.parent / "docs" / "tutorials")
    asked = parser.parse_args()
    if asked.verb == "build":
        from tutorials.tools.pictures import freeze
        from tutorials.tools.running import run

        for path in find(asked.names):
            start = time.perf_counter()
            place = write(freeze(run(path)), path)
            print(f"{place.name}: {time.perf_counter() - start:.0f} s, {place.stat().st_size / 1000:.0f} kB")
    elif asked.verb == "reword":
        changed = [path.name for path in find(asked.names) if not reword(path)]
        if changed:
            raise SystemExit(f"code has changed in {', '.join(changed)}: build instead")
    elif asked.verb == "check":
        found = [line for path in find() for line in mismatches(path)]
        if found:
            raise SystemExit("\n".join([*found, "run: python -m tutorials.tools build NN"]))
    else:
        from tutorials.tools.pages import write_pages

        print(f"{len(write_pages(asked.folder))} pages in {asked.folder}")


if __name__ == "__main__":
    main()
