// Draws each plot from the figure that stands beside it; colours of text and grid are the page's.
(() => {
  "use strict";
  const settings = { responsive: true, displayModeBar: false };
  for (const plot of document.querySelectorAll(".bs-plot")) {
    const figure = JSON.parse(plot.querySelector("script[type='application/json']").textContent);
    Plotly.newPlot(plot.querySelector(".bs-canvas"), figure.data, figure.layout, settings);
  }
})();
