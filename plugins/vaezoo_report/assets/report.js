"use strict";
// Sorting, explanations, and which runs are shown. Without this script the page is still complete.

const tip = document.getElementById("tip");

function explain(target) {
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  const at = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(12, at.left), innerWidth - own.width - 12);
  const above = at.bottom + own.height + 10 > innerHeight && at.top > own.height + 10;
  tip.style.left = `${left}px`;
  tip.style.top = `${above ? at.top - own.height - 6 : at.bottom + 6}px`;
}

function hush() { tip.hidden = true; }

for (const target of document.querySelectorAll("[data-tip]")) {
  target.addEventListener("pointerenter", () => explain(target));
  target.addEventListener("pointerleave", hush);
  target.addEventListener("focus", () => explain(target));
  target.addEventListener("blur", hush);
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
document.addEventListener("scroll", hush, { capture: true, passive: true });

function sort(button) {
  const heading = button.closest("th"), body = button.closest("table").tBodies[0];
  const column = Number(button.dataset.sort);
  const down = heading.getAttribute("aria-sort") !== "descending" && column > 0
    || heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentNode.children) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows];
  const by = column === 0
    ? (a, b) => a.cells[0].textContent.localeCompare(b.cells[0].textContent)
    : (a, b) => Number(a.cells[column].dataset.value) - Number(b.cells[column].dataset.value);
  const missing = (row) => column > 0 && row.cells[column].dataset.value === "";
  // What has no number stays at the end, whichever way the others go.
  rows.sort((a, b) => missing(a) - missing(b) || (down ? by(b, a) : by(a, b)));
  body.append(...rows);
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => sort(button));
}

for (const box of document.querySelectorAll("[data-toggle]")) {
  const apply = () => {
    for (const part of document.querySelectorAll(`[data-run="${box.dataset.toggle}"]`)) {
      part.classList.toggle("off", !box.checked);
    }
  };
  box.addEventListener("change", apply);
  apply();
}

const only = document.getElementById("only-differing");
if (only) {
  const table = document.querySelector("table.options");
  const apply = () => table.classList.toggle("only", only.checked);
  only.addEventListener("change", apply);
  apply();
}
