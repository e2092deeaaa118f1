"""Prepares the pages for the site's builder: python docs/site/prepare.py DIRECTORY [--watch].

The pages are written for a reader of the repository, so they link to its files. The site has only the pages. This
script copies the pages to DIRECTORY/pages and points every other link to the repository on the web. With --watch it
goes on, and copies the pages again when one changes.
"""

import re
import sys
import time
from pathlib import Path

SITE = Path(__file__).resolve().parent
DOCS = SITE.parent
ROOT = DOCS.parent
WEB = "https://github.com/snakepit-go/snakepit"

# A fenced block, an indented one, or code in a paragraph, which stay as they are; else a link's or a picture's target.
PIECE = re.compile(
    r"(?ms)^(?P<fence>```+).*?^(?P=fence)[ \t]*$"
    r"|^(?:    [^\n]*\n)+"
    r"|(?P<tick>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=tick)(?!`)"
    r"|\]\((?P<target>[^)\s]+)\)"
)


def prepare(out: Path) -> None:
    """Writes the builder's configuration and the pages.

    Args:
        out: Where to write. What an earlier run left there is removed.
    """
    pages = out / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    write(out / "zensical.toml", (SITE / "zensical.toml").read_text(encoding="utf-8"))
    package = out / "python"
    if not package.is_symlink():
        package.symlink_to(ROOT / "python", target_is_directory=True)
    sources = {path: path.name for path in inputs() if path.suffix != ".toml"}
    sources[DOCS / "README.md"] = "index.md"
    for stale in {page.name for page in pages.iterdir()} - set(sources.values()):
        (pages / stale).unlink()
    for source, target in sources.items():
        if source.suffix == ".png":
            write(pages / target, source.read_bytes())
            continue
        text = source.read_text(encoding="utf-8")
        if source.suffix == ".md":
            text = PIECE.sub(lambda found, source=source: piece(found, source, sources), text)
        write(pages / target, text)


def inputs() -> "list[Path]":
    """Returns the files that the site is made from, beside the Python package."""
    return [*DOCS.glob("*.md"), *DOCS.glob("*.svg"), *DOCS.glob("*.png"), *SITE.glob("*.md"), *SITE.glob("*.toml")]


def write(path: Path, content: "str | bytes") -> None:
    """Writes a file if its content is new, because the builder's server watches it."""
    data = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def piece(found: "re.Match[str]", source: Path, sources: "dict[Path, str]") -> str:
    """Returns what the site shows in place of a piece of a page."""
    target = found["target"]
    if target is None or re.match(r"[a-z]+:|#", target):
        return found[0]
    path, _, anchor = target.partition("#")
    file = (source.parent / path).resolve()
    if file in sources:
        there = sources[file]
    elif file.exists():
        there = f"{WEB}/{'tree' if file.is_dir() else 'blob'}/main/{file.relative_to(ROOT).as_posix()}"
    else:
        raise SystemExit(f"{source.relative_to(ROOT)} links to {target}, which does not exist")
    return f"]({there}{'#' + anchor if anchor else ''})"


def changes() -> "dict[Path, float]":
    """Returns when each input changed last."""
    return {path: path.stat().st_mtime for path in inputs()}


if __name__ == "__main__":
    if sys.argv[2:] not in ([], ["--watch"]) or len(sys.argv) < 2:
        raise SystemExit(__doc__)
    prepare(Path(sys.argv[1]))
    seen = changes()
    while sys.argv[2:]:
        time.sleep(1)
        try:
            if changes() != seen:
                seen = changes()
                prepare(Path(sys.argv[1]))
        except (SystemExit, OSError) as problem:  # a page is being written
            print(problem, file=sys.stderr)
