"""The artifacts screens: what lies below the folder, and what an audit or a stress run found."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlencode

from nicegui import ui

from brainscan.page.screens.artifact_views import findings
from brainscan.page.screens.folders import Found, listed, opened
from brainscan.page.screens.frame import View, connected, paragraph, told
from brainscan.page.screens.records import Record, read_records
from brainscan.page.service import Service
from brainscan.views import Html, Section, escape, join, transcripts

REPORT = "report.html"
EMPTY = Html("")


@dataclass
class Artifacts:
    """One tab's list."""

    service: Service
    """The folder."""
    _list: Html = EMPTY

    async def build(self) -> None:
        """Looks, and makes the list."""
        paragraph(f"Below {self.service.folder.resolve()}")
        place = View(Html('<p class="bs-none">Looking.</p>'))
        if not await connected():
            return
        found = await asyncio.to_thread(listed, self.service.folder)
        rows = join(map(_row, found.found))
        self._list = (
            Html(f'<ul class="bp-list">{rows}</ul>')
            if found.found
            else Html(
                '<p class="bs-none">No audit, stress run or other artifact: make one with '
                "`brainscan audit` or `brainscan stress run`.</p>"
            )
        )
        if not found.whole:
            self._list = Html(
                f'{self._list}<p class="bs-hint">There are more folders than were looked into.</p>'
            )
        place.show(self._list)

    def sections(self) -> list[Section]:
        """The list, for an export."""
        return [Section("Artifacts", self._list)]


def _row(found: Found) -> Html:
    name = escape(found.path)
    if found.kind != "artifact":
        link = escape(f"/artifact?{urlencode({'path': found.path})}")
        name = Html(f'<a href="{link}">{name}</a>')
    return Html(
        f'<li><span class="bs-tag">{escape(found.kind)}</span> {name} '
        f'<span class="bs-hint">{escape(found.note)}</span></li>'
    )


@dataclass
class Artifact:
    """One tab's open audit or stress run."""

    service: Service
    """The folder."""
    path: str
    """Where it is below the folder."""
    _sections: list[Section] = field(default_factory=list)

    async def build(self) -> None:
        """Reads it, and shows what was found."""
        place = ui.element("div")
        with place:
            paragraph("Reading.", "bs-none")
        if not await connected():
            return
        with told():
            folder = opened(self.service.folder, self.path)
            self._sections = await asyncio.to_thread(findings, folder)
            records = await asyncio.to_thread(read_records, folder)
            place.clear()
            with place:
                self._show(folder.joinpath(REPORT).is_file(), records)

    def sections(self) -> list[Section]:
        """What was found, for an export."""
        return self._sections

    def _show(self, has_page: bool, records: list[Record]) -> None:
        if has_page:
            link = escape(f"/report?{urlencode({'path': self.path})}")
            View(Html(f'<p><a href="{link}" target="_blank">The whole report</a></p>'))
        for section in self._sections:
            lead = f'<p class="bs-lead">{escape(section.lead)}</p>' if section.lead else ""
            View(
                Html(
                    f'<section class="bs-section"><h2>{escape(section.title)}</h2>{lead}'
                    f"{section.body}</section>"
                )
            )
        own = transcripts([record.view for record in records])
        self._sections = [*self._sections, Section("Transcripts", own)]
        rows = join(map(self._link, records))
        View(
            Html(
                '<section class="bs-section"><h2>Transcripts</h2><p class="bs-lead">Each opens '
                "with its tokens, and can be changed and gone on with from any message.</p>"
                f'<ul class="bp-list">{rows}</ul></section>'
            )
        )

    def _link(self, record: Record) -> Html:
        link = escape(f"/transcript?{urlencode({'path': self.path, 'record': record.id})}")
        outcome = escape(record.view.outcome)
        start = escape(" ".join(record.answer.split())[:140])
        return Html(
            f'<li><span class="bs-outcome" data-outcome="{outcome}">{outcome}</span> '
            f'<a href="{link}">{escape(record.view.title)}</a>'
            f'<div class="bs-hint">{start}</div></li>'
        )
