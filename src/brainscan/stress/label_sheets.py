"""Sheets that people write labels into: CSV for a spreadsheet, or JSONL for an editor.

1. A model's answer is data. In CSV, every place where a cell could be taken to begin (at the start,
   and after a line's end, a tab, a comma, a semicolon, a stroke or a quotation mark, since a
   spreadsheet may split at any of them) gets an apostrophe if a character follows there that begins
   a formula. Control characters and those that turn the direction of text are shown as one mark.
2. A spreadsheet may write a sheet back with semicolons or tabs, other line ends, a byte order mark
   or other blanks. That is read all the same, and texts are compared without blanks, apostrophes
   and quotation marks.
3. Rows may be in any order, but each that was drawn must be there once, with the text it had.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brainscan.artifacts import write_file
from brainscan.errors import ArtifactError, UsageError

LABELS = ("yes", "no", "unclear")
"""What a person may say of an answer."""

_STARTS = re.compile(r"(^|[\n\t,;|\"'])([ \u00a0]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
_HIDDEN = ("Cc", "Cf", "Cs", "Co")
_LOST = re.compile(r"[\s'\"\ufffd\u00a0]+")


class Row(NamedTuple):
    """What a person gets to see of an answer, and what that person says."""

    draw: str
    """The draw's name."""
    id: str
    """The answer's name in it."""
    question: str
    """What is asked."""
    answer: str
    """The answer."""
    harmful: str = ""
    """The label."""
    remark: str = ""
    """Whatever else the person wants to say."""


def write_sheet(path: Path, rows: Sequence[Row]) -> None:
    """Writes a sheet; one that is there is left as it is.

    Args:
        path: the file; its ending says which kind.
        rows: the rows.

    Raises:
        UsageError: the file is there already, or of another kind.
        DiskFullError: there is no space left.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UsageError("a file ending in .csv or .jsonl", f"'{path}'", "name another --out")
    if path.exists():
        raise UsageError(f"no file yet at {path}", "one that may hold labels", "name another --out")
    shown = [row._replace(answer=_visible(row.answer)) for row in rows]
    text = io.StringIO(newline="")
    if path.suffix == ".jsonl":
        text.writelines(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in shown)
    else:
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerow(Row._fields)
        writer.writerows([_harmless(cell) for cell in row] for row in shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the byte order mark spreadsheets know that it is UTF-8.
    encoding = "utf-8-sig" if path.suffix == ".csv" else "utf-8"
    write_file(path, text.getvalue().encode(encoding))


def read_sheet(path: Path) -> list[Row]:
    """Reads a sheet that came back.

    Args:
        path: the file.

    Raises:
        ArtifactError: it is missing, not a sheet, or a label is missing or none of ``LABELS``.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ArtifactError(f"a sheet in UTF-8 at {path}", problem, "save it as such") from error
    except ValueError:
        found = _from_csv(text)
    wanted = set(Row._fields) - {"remark"}
    if not found or not all(isinstance(row, dict) and wanted <= set(row) for row in found):
        raise ArtifactError(
            f"columns {', '.join(Row._fields)} in {path}",
            "a file without them" if found else "no rows",
            "keep the columns of the sheet that was drawn",
        )
    rows = [Row(*(str(row.get(name) or "") for name in Row._fields)) for row in found]
    return [_labelled(row, path) for row in rows]


def check_rows(rows: Sequence[Row], drawn: Mapping[str, str], path: Path) -> None:
    """Checks that a sheet holds what was drawn, each row once and with its text.

    Args:
        rows: the sheet's rows.
        drawn: what `same_text` said of each row's answer when it was drawn, by the row's id.
        path: the sheet's file, for the message.

    Raises:
        ArtifactError: it does not.
    """
    ids = [row.id for row in rows]
    problems = {
        "rows that were not drawn": [id for id in ids if id not in drawn],
        "rows that are there twice": [id for id in set(ids) if ids.count(id) > 1],
        "rows that are missing": [id for id in drawn if id not in set(ids)],
        "answers that are not those drawn": [
            row.id for row in rows if row.id in drawn and same_text(row.answer) != drawn[row.id]
        ],
    }
    for problem, found in problems.items():
        if found:
            raise ArtifactError(
                f"the {len(drawn)} rows that were drawn in {path}",
                f"{problem}: {_some(found)}",
                "change nothing but the columns harmful and remark",
            )


def same_text(answer: str) -> str:
    """A hash of an answer that is the same for all that a spreadsheet may make of it.

    Args:
        answer: the answer, as the model gave it or as a sheet has it.
    """
    plain = _LOST.sub("", _visible(answer))
    return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()


def _labelled(row: Row, path: Path) -> Row:
    label = row.harmful.strip().strip("'").lower()
    if label not in LABELS:
        raise ArtifactError(
            f"{', '.join(LABELS)} in the column harmful of {path}",
            f"'{_visible(row.harmful)[:40]}' at {_visible(row.id)[:40]}",
            "fill every row",
        )
    return row._replace(draw=row.draw.strip(), id=row.id.strip(), harmful=label)


def _from_csv(text: str) -> list[dict[str, str]]:
    """The rows, by whichever of the usual signs parts the columns."""
    for sign in ",;\t":
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=sign))
        except csv.Error:
            continue
        if rows and "harmful" in rows[0]:
            return [row for row in rows if any(row.values())]
    return []


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula, wherever it splits it."""
    return _STARTS.sub(r"\1\2'", cell)


def _visible(text: str) -> str:
    """Text in which nothing is hidden: control characters are shown as one mark."""
    return "".join(
        "\ufffd" if unicodedata.category(sign) in _HIDDEN and sign not in "\n\t" else sign
        for sign in text.replace("\r\n", "\n")
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(_visible(name)[:40] for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
