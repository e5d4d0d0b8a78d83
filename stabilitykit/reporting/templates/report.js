"use strict";
// Sorting and filtering of what is on the page. Nothing is loaded, nothing is sent; without it every row stays readable.
(() => {
  const number = (text) => {
    const plain = text.trim().replace(/−/g, "-").replace("∞", "Infinity").replace(/ ?%$/, "");
    return plain === "" ? NaN : Number(plain);
  };
  const shown = (cell) => (cell ? cell.textContent.trim() : "");

  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row, place) => [row, shown(row.cells[column]), place]);
        const filled = rows.filter(([, text]) => text !== "");
        const numeric = filled.every(([, text]) => !Number.isNaN(number(text)));
        const compare = (a, b) => (numeric ? number(a) - number(b) : a.localeCompare(b, undefined, { numeric: true }));
        filled.sort((a, b) => (down ? -1 : 1) * compare(a[1], b[1]) || a[2] - b[2]);
        // Empty entries come last in both directions.
        body.append(...filled.map(([row]) => row), ...rows.filter(([, text]) => text === "").map(([row]) => row));
      });
    });
  };

  const filter = (before, items, what) => {
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    const count = document.createElement("span");
    count.setAttribute("role", "status");
    label.append(`Filter ${what} `, input, " ", count);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const item of items) {
        const text = item.textContent.toLowerCase();
        item.hidden = !words.every((word) => text.includes(word));
        left += item.hidden ? 0 : 1;
      }
      count.textContent = words.length ? `${left} of ${items.length}` : "";
    });
    before.before(label);
  };

  for (const table of document.querySelectorAll("table")) {
    const rows = table.tBodies.length ? [...table.tBodies[0].rows] : [];
    if (!table.tHead || table.classList.contains("confusion")) continue;
    const grouped = rows.some((row) => row.classList.contains("group"));
    if (!grouped && rows.length > 2) sortable(table);
    const named = rows.filter((row) => row.cells.length > 1);
    if (named.length > 8) filter(table, named, "rows");
  }
  for (const cards of document.querySelectorAll(".cards")) {
    if (cards.children.length > 5) filter(cards, [...cards.children], "pairs");
  }
})();
