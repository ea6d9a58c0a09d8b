// The location map: pointing at or going to a cell reads it out; arrow keys go from cell to cell.
(() => {
  "use strict";

  function start(map) {
    map.dataset.ready = "yes";
    const rows = [...map.querySelectorAll("table[role='grid'] > tbody > tr")]
      .map((row) => [...row.querySelectorAll("td")]);
    const readout = map.querySelector(".bs-readout");
    const grid = map.querySelector("table[role='grid']");

    function tell(event) {
      const cell = event.target.closest("tbody td");
      if (cell) readout.textContent = cell.title;
    }

    function enter(event) {
      const cell = event.target.closest("tbody td");
      if (!cell) return;
      grid.querySelectorAll("td[tabindex='0']").forEach((other) => { other.tabIndex = -1; });
      cell.tabIndex = 0;
    }

    function move(event) {
      const i = rows.findIndex((row) => row.includes(event.target));
      if (i < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const j = rows[i].indexOf(event.target);
      const goals = {
        ArrowRight: [i, j + 1], ArrowLeft: [i, j - 1], ArrowDown: [i + 1, j], ArrowUp: [i - 1, j],
        Home: [i, 0], End: [i, rows[i].length - 1],
      };
      if (!(event.key in goals)) return;
      event.preventDefault();
      const [row, column] = goals[event.key];
      rows[row]?.[column]?.focus();
    }

    for (const kind of ["mouseover", "focusin", "click"]) grid.addEventListener(kind, tell);
    grid.addEventListener("focusin", enter);
    grid.addEventListener("keydown", move);
  }

  document.querySelectorAll(".bs-location:not([data-ready])").forEach(start);
})();
