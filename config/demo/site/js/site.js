"use strict";

// Shows how long the page took, so that a hit can be seen without a terminal.
const note = document.getElementById("timing");
const [entry] = performance.getEntriesByType("navigation");
if (note && entry) {
  note.querySelector("output").textContent = `${Math.round(entry.responseEnd - entry.requestStart)} ms`;
  note.hidden = false;
}
