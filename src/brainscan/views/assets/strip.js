// The token strip: pointing at, focusing or tapping a token shows its latents; arrow keys move.
(() => {
  "use strict";

  function start(strip) {
    strip.dataset.ready = "yes";
    const data = JSON.parse(strip.querySelector("script[type='application/json']").textContent);
    const tokens = [...strip.querySelectorAll(".bs-tokens > .bs-token")];
    const stored = [...strip.querySelector(".bs-store").children];
    const panel = strip.querySelector(".bs-panel");
    const box = strip.querySelector(".bs-tokens");
    let chosen = null;

    function entry([latent, activation, share], open) {
      const part = stored[latent].cloneNode(true);
      part.open = open;
      part.querySelector("summary .bs-value").textContent = activation.toPrecision(3);
      part.querySelector(".bs-meter i").style.setProperty("--heat", Math.min(share, 1));
      return part;
    }

    function say(text) {
      const line = document.createElement("p");
      line.className = "bs-none";
      line.textContent = text;
      return line;
    }

    function choose(token) {
      if (token === chosen) return;
      if (chosen) {
        chosen.setAttribute("aria-selected", "false");
        chosen.tabIndex = -1;
      }
      chosen = token;
      token.setAttribute("aria-selected", "true");
      token.tabIndex = 0;
      const head = document.createElement("p");
      head.className = "bs-chosen";
      const word = document.createElement("b");
      word.textContent = token.textContent;
      const place = document.createElement("span");
      place.className = "bs-hint";
      place.textContent = "position " + token.dataset.position;
      head.append(word, place);
      const latents = data.tokens[Number(token.dataset.i)];
      const shown = strip.querySelector(".bs-choice[aria-pressed='true']")?.dataset.i;
      const open = Math.max(0, latents.findIndex((latent) => String(latent[0]) === shown));
      const parts = latents.map((latent, i) => entry(latent, i === open));
      if (token.classList.contains("bs-sink")) {
        parts.push(say("An attention sink: its activation is not text and is left out."));
      } else if (!parts.length) {
        parts.push(say("No latent fires here."));
      }
      panel.replaceChildren(head, ...parts);
      panel.scrollTop = 0;
    }

    function colour(button) {
      for (const other of strip.querySelectorAll(".bs-choice")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      const shares = data.shares[button.dataset.i];
      tokens.forEach((token, i) => {
        const strongest = Math.max(0, ...data.tokens[i].map((latent) => latent[2]));
        token.style.setProperty("--heat", Math.min(1, shares ? shares[i] : strongest));
      });
    }

    function move(event) {
      const at = tokens.indexOf(event.target);
      if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const forward = getComputedStyle(box).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
      const backward = forward === "ArrowRight" ? "ArrowLeft" : "ArrowRight";
      const goals = { [forward]: at + 1, [backward]: at - 1, Home: 0, End: tokens.length - 1 };
      const next = event.key === "ArrowDown" || event.key === "ArrowUp"
        ? beside(event.target, event.key === "ArrowDown") : tokens[goals[event.key]];
      if (!next) return;
      event.preventDefault();
      next.focus();
    }

    function beside(token, down) {
      const from = token.getBoundingClientRect();
      const sorted = tokens
        .map((other) => [other, other.getBoundingClientRect()])
        .filter(([, rect]) => (down ? rect.top > from.top + 4 : rect.top < from.top - 4))
        .map(([other, rect]) => [
          other, Math.abs(rect.top - from.top) * 1000 + Math.abs(rect.left - from.left)]);
      return sorted.sort((a, b) => a[1] - b[1])[0]?.[0];
    }

    for (const kind of ["mouseover", "focusin", "click"]) {
      box.addEventListener(kind, (event) => {
        const token = event.target.closest(".bs-token");
        if (token) choose(token);
      });
    }
    box.addEventListener("keydown", move);
    strip.querySelector(".bs-choices")?.addEventListener("click", (event) => {
      const button = event.target.closest(".bs-choice");
      if (button) colour(button);
    });
    choose(tokens.find((token) => token.tabIndex === 0) ?? tokens[0]);
  }

  document.querySelectorAll(".bs-strip:not([data-ready])").forEach(start);
})();
