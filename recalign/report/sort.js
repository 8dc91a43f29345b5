// A click on a heading sorts its table, figures downward first; a second click turns it round.
for (const table of document.querySelectorAll("table.sorts")) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, place) => row.cells[place].dataset.order ?? "";
  const text = (row, place) => row.cells[place].textContent;
  headings.forEach((heading, place) => heading.querySelector("button").addEventListener("click", () => {
    const rows = [...body.rows], figures = rows.some(row => value(row, place) !== "");
    const was = heading.getAttribute("aria-sort");
    const upward = was ? was === "descending" : !figures;
    const compare = (a, b) => {
      if (!figures) return text(a, place).localeCompare(text(b, place), "en", {numeric: true}) * (upward ? 1 : -1);
      const [x, y] = [a, b].map(row => value(row, place));
      if (x === "" || y === "") return (x === "") - (y === "");  // what was not measured comes last
      return (x - y) * (upward ? 1 : -1);
    };
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", upward ? "ascending" : "descending");
    body.append(...rows.sort(compare));
  }));
}
