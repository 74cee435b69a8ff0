"use strict";

// Slices are parsed when their strip comes near, so that a page of thousands opens at once.
const parsed = new Map();

function slicesOf(strip) {
  if (!parsed.has(strip)) parsed.set(strip, JSON.parse(strip.querySelector("script").textContent));
  return parsed.get(strip);
}

function show(strip) {
  const slice = slicesOf(strip)[strip.querySelector("input").value];
  const [x, y, width, height] = slice.box;
  const picture = strip.querySelector("image");
  for (const [name, value] of Object.entries({ x, y, width, height })) picture.setAttribute(name, value);
  picture.setAttribute("href", "data:image/webp;base64," + slice.picture);
  strip.querySelectorAll(".slice g[class]").forEach((group, kind) => {
    group.querySelectorAll("path").forEach((path, k) => path.setAttribute("d", slice.outlines[kind][k]));
  });
  strip.querySelector("output").textContent = slice.label;
  strip.querySelector("input").setAttribute("aria-valuetext", "slice " + slice.label);
}

const strips = [...document.querySelectorAll(".strip")];
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        watcher.unobserve(entry.target);
        show(entry.target);
      }
    }
  },
  { rootMargin: "600px" },
);
for (const strip of strips) {
  watcher.observe(strip);
  strip.querySelector("input").addEventListener("input", () => show(strip));
}
addEventListener("beforeprint", () => strips.forEach(show));

for (const box of document.querySelectorAll("[data-hides]")) {
  const apply = () => document.body.classList.toggle(box.dataset.hides, !box.checked);
  box.addEventListener("change", apply);
  apply(); // browsers keep the state of a page that is loaded again
}

const names = new Intl.Collator(undefined, { numeric: true });

// What has no value comes last, whichever way the others are sorted.
function compare(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const difference = Number(a) - Number(b);
  return sign * (Number.isNaN(difference) ? names.compare(a, b) : difference);
}

function sort(header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = header.closest("table").tBodies[0];
  const keyed = [...body.rows].map((row) => [row.cells[header.cellIndex].dataset.value, row]);
  keyed.sort(([a], [b]) => compare(a, b, ascending ? 1 : -1));
  const rows = keyed.map(([, row]) => row);
  body.replaceChildren(...rows);
  const byName = new Map(strips.map((strip) => [strip.dataset.patient, strip]));
  const order = new Set(rows.map((row) => byName.get(row.cells[0].dataset.value)).filter(Boolean));
  document.querySelector(".strips").replaceChildren(...order);
}

for (const button of document.querySelectorAll(".sortable button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}
