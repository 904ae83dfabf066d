for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent.trim();
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending" || (head.ariaSort !== "descending" && head.classList.contains("n"));
      heads.forEach((other) => (other.ariaSort = other === head ? (down ? "descending" : "ascending") : null));
      const rows = [...table.tBodies[0].rows].sort(
        (a, b) => value(a, i).localeCompare(value(b, i), undefined, { numeric: true }));
      if (head.classList.contains("n")) rows.sort((a, b) => value(a, i) - value(b, i));
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
    });
  });
}
const open = () => document.querySelector(`${location.hash || "#run0"} > details`)?.setAttribute("open", "");
addEventListener("hashchange", open);
open();
