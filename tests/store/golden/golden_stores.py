"""The golden stores of all released formats, unpacked, and what they hold."""

import json
import lzma
from pathlib import Path

HERE = Path(__file__).parent
FORMATS = sorted(int(path.stem.removeprefix("format-")) for path in HERE.glob("format-*.xz"))


def unpack(number: int, place: Path) -> Path:
    """Unpack the golden store of a format into a directory; return the directory."""
    place.mkdir(mode=0o700)
    data = place / "data.mdb"
    data.write_bytes(lzma.decompress((HERE / f"format-{number}.xz").read_bytes()))
    data.chmod(0o600)
    return place


def expected(number: int) -> dict:
    """Return what the golden store of a format holds, as `make_golden.content` says it."""
    return json.loads((HERE / f"format-{number}.json").read_text())
