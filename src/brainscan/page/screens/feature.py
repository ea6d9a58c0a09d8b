"""The feature screen: a latent's card, and a sentence of one's own read by it; and the search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from nicegui import ui

from brainscan.errors import UsageError
from brainscan.page.screens.address import LONGEST
from brainscan.page.screens.frame import View, main_button, paragraph, set_address, told
from brainscan.page.screens.strips import scan_strip
from brainscan.page.service import Service
from brainscan.views import Html, Section, escape, feature_card, join
from brainscan.views.examples import example_list
from brainscan.views.html import percent

if TYPE_CHECKING:
    from brainscan.features import Hit, Scan
    from brainscan.models import LanguageModel

NO_ATLAS = (
    "This dictionary has no atlas, so that nothing is known of its latents yet: "
    "`brainscan atlas search WORD` builds one."
)

EMPTY = Html("")

_HITS = 20


@dataclass
class Feature:
    """One tab's feature screen."""

    service: Service
    """The model."""
    address: str
    """The feature's address; empty where none was given."""
    text: str = ""
    """A sentence to read; empty for none."""
    colour: str = ""
    """What colours it to begin with; empty for the feature itself."""
    _card: Html = EMPTY
    _scan: Scan | None = None

    def build(self) -> None:
        """Makes the screen; `load` fills it."""
        self._place = View()
        with ui.element("section").classes("bp-panel bp-stack"):
            View(Html("<h3>A sentence of your own</h3>"))
            with ui.element("div").classes("bp-row"):
                self._field = ui.input("Text", value=self.text).props("outlined dense")
                self._field.classes("bp-grow").on("keydown.enter", self.read)
                main_button("Read it", self.read)
                link = f"/?{urlencode({'edits': f'{self.address}=2x'})}"
                View(Html(f'<a href="{escape(link)}">Chat with it turned up</a>'))
            self._strip = View()
            self._strip.on_chosen("colour", self._colour)

    async def load(self) -> None:
        """Shows the card, and reads the text if there is one."""
        with told():
            self._card = await self._read_card()
            self._place.show(self._card)
            if self.text:
                await self.read()

    async def read(self) -> None:
        """Shows how strongly the feature fires on each token of the text."""
        self.text = str(self._field.value or "")
        self._tell()
        with told():
            self._scan = await self.service.run(self._read)
            self._strip.show(scan_strip(self._scan, self.colour))

    def _colour(self, by: str) -> None:
        self.colour = by
        self._tell()

    def _tell(self) -> None:
        """Puts what is read, and by what it is coloured, into the address."""
        query = {"id": self.address, "text": self.text}
        query |= {"colour": self.colour} if self.colour else {}
        set_address("/feature", urlencode(query, errors="replace"), LONGEST)

    def _read(self, lm: LanguageModel) -> Scan:
        from brainscan.features import scan

        service = self.service
        return scan(lm, self.text, service.dictionary, service.atlas, follow=[self.address])

    def sections(self) -> list[Section]:
        """What stands on the screen, for an export."""
        made = [Section("The feature", self._card)]
        if self._scan is not None:
            made.append(Section("A sentence of your own", scan_strip(self._scan, self.colour)))
        return made

    async def _read_card(self) -> Html:
        if not self.address:
            raise UsageError("a feature's address, as in ?id=resid_post.15/1234", "none", "add it")
        atlas = self.service.atlas
        if atlas is None:
            return Html(
                f'<p><code class="bs-address">{escape(self.address)}</code></p>'
                f'<p class="bs-none">{escape(NO_ATLAS)}</p>'
            )
        # An atlas is read in the engine's thread alone, as everything that readings use.
        return feature_card(await self.service.run(lambda lm: atlas.feature(self.address)))


@dataclass
class Search:
    """One tab's search screen."""

    service: Service
    """The model, and the atlas."""
    query: str = ""
    """What to look for; empty for nothing yet."""
    _hits: list[Hit] = field(default_factory=list)

    def build(self) -> None:
        """Makes the screen."""
        if self.service.atlas is None:
            paragraph(NO_ATLAS)
            return
        with ui.element("div").classes("bp-row").props('role="search"'):
            self._field = ui.input("Words", value=self.query).props("outlined dense autofocus")
            self._field.classes("bp-grow").on("keydown.enter", self.search)
            main_button("Search", self.search)
        self._found = View()

    async def search(self) -> None:
        """Looks for what stands in the field."""
        self.query = str(self._field.value or "")
        set_address("/search", urlencode({"q": self.query}), LONGEST)
        await self.look()

    def sections(self) -> list[Section]:
        """What was found, for an export."""
        return [Section(f"Latents for {self.query}", self._list())]

    async def look(self) -> None:
        """Shows what the query finds."""
        atlas = self.service.atlas
        if atlas is None or not self.query:
            return
        with told():
            self._hits = await self.service.run(lambda lm: atlas.search(self.query, _HITS))
            self._found.show(self._list())

    def _list(self) -> Html:
        if not self._hits:
            return Html('<p class="bs-none">No latent fires on it or promotes it.</p>')
        return Html(f'<ul class="bp-list">{join(map(_hit, self._hits))}</ul>')


def _hit(hit: Hit) -> Html:
    return Html(
        f'<li><h3><bdi class="bs-label">{escape(hit.label)}</bdi></h3>'
        f'<p class="bp-doing"><code class="bs-address">{escape(hit.id)}</code>'
        f'<span class="bs-value">match {percent(hit.score)}</span></p>'
        f"{example_list(hit.examples)}</li>"
    )
