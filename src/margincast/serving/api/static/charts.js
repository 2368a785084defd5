// Lines over publications, as SVG that a screen reader can name.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600, HEIGHT = 220, LEFT = 52, RIGHT = 12, TOP = 12, BOTTOM = 26;

function node(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// series: [{name, kind, points: [{number, value, fell}]}]; values that are null are left out.
export function chart(series, { label, format }) {
  const all = series.flatMap((one) => one.points).filter((point) => point.value !== null);
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  svg.append(node("title", {}, label));
  if (all.length === 0) {
    svg.append(node("text", { x: LEFT, y: HEIGHT / 2 }, "nothing known"));
    return svg;
  }
  const numbers = all.map((point) => point.number);
  const first = Math.min(...numbers), last = Math.max(...numbers);
  const high = Math.max(...all.map((point) => point.value)) * 1.1;
  const x = (number) => LEFT + ((WIDTH - LEFT - RIGHT) * (number - first)) / Math.max(1, last - first);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / high;
  for (const share of [0, 0.5, 1]) {
    const at = y(share * high);
    svg.append(node("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    svg.append(node("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, format(share * high)));
  }
  svg.append(node("text", { x: LEFT, y: HEIGHT - 8 }, `publication ${first}`));
  if (last > first) svg.append(node("text", { x: WIDTH - RIGHT, y: HEIGHT - 8, "text-anchor": "end" }, `${last}`));
  for (const { name, kind, points } of series) {
    const known = points.filter((point) => point.value !== null);
    const path = known.map((point, place) => `${place ? "L" : "M"}${x(point.number)} ${y(point.value)}`);
    svg.append(node("path", { class: kind, d: path.join("") }));
    for (const point of known) {
      const dot = node("circle", {
        class: point.fell ? `${kind} fell` : kind, cx: x(point.number), cy: y(point.value), r: 3,
      });
      dot.append(node("title", {}, `${name}, publication ${point.number}: ${format(point.value)}`));
      svg.append(dot);
    }
  }
  return svg;
}
