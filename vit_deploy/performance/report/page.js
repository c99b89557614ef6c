"use strict";
// Tables sort by a press on a heading; figures by their key, words as people would, absent ones last.
const said = document.getElementById("said");
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const figures = head.classList.contains("number");
      const read = (row) => {
        const cell = row.cells[column];
        return figures ? (cell.dataset.key === undefined ? null : Number(cell.dataset.key)) : cell.textContent;
      };
      const compare = (a, b) => (figures ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      const rows = [...body.rows].map((row) => [read(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return down ? compare(b, a) : compare(a, b);
      });
      body.append(...rows.map(([, row]) => row));
      said.textContent = `sorted by ${button.textContent}, ${down ? "descending" : "ascending"}`;
    });
  });
}
// What a screen reader is told of a mark, a pointer that rests on it is shown.
for (const mark of document.querySelectorAll("svg .role-mark [aria-label]")) {
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = mark.getAttribute("aria-label");
  mark.append(title);
}
