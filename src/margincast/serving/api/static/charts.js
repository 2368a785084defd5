// Lines over the times of publications, as SVG that a screen reader can name.

const SVG = "http://www.w3.org/2000/svg";
const WIDEST = 660, HEIGHT = 220, LEFT = 58, RIGHT = 12, TOP = 12, BOTTOM = 26;

function node(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export const minute = (time) => `${time.slice(0, 16).replace("T", " ")} UTC`;

// The least round number times a power of ten of which four steps reach the highest value.
function stepOf(high) {
  const power = 10 ** Math.floor(Math.log10(high / 4));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10].map((one) => one * power).find((step) => 4 * step >= high);
}

// series: [{name, kind, points: [{number, time, value, fell}]}]; values that are null are left out.
// width: of the place the chart is for, pixels, so that its text stays readable.
export function chart(series, { label, format, width }) {
  const WIDTH = Math.max(300, Math.min(WIDEST, width || WIDEST));
  const all = series.flatMap((one) => one.points).filter((point) => point.value !== null);
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  svg.append(node("title", {}, label));
  if (all.length === 0) {
    svg.append(node("text", { x: LEFT, y: HEIGHT / 2 }, "nothing known"));
    return svg;
  }
  const sorted = all.map((point) => point.time).sort();
  const from = sorted[0], to = sorted[sorted.length - 1];
  const first = Date.parse(from), last = Date.parse(to);
  const step = stepOf(Math.max(...all.map((point) => point.value)) || 1);
  const high = 4 * step;
  const x = (time) => LEFT + ((WIDTH - LEFT - RIGHT) * (Date.parse(time) - first)) / Math.max(1, last - first);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / high;
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const at = y(share * high);
    svg.append(node("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    svg.append(node("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, format(share * high)));
  }
  svg.append(node("text", { x: LEFT, y: HEIGHT - 8 }, minute(from)));
  if (last > first) svg.append(node("text", { x: WIDTH - RIGHT, y: HEIGHT - 8, "text-anchor": "end" }, minute(to)));
  for (const { name, kind, points } of series) {
    const known = points.filter((point) => point.value !== null);
    const path = known.map((point, place) => `${place ? "L" : "M"}${x(point.time)} ${y(point.value)}`);
    svg.append(node("path", { class: kind, d: path.join("") }));
    for (const point of known) {
      const dot = node("circle", {
        class: point.fell ? `${kind} fell` : kind, cx: x(point.time), cy: y(point.value), r: 3,
      });
      dot.append(node("title", {}, `${name}, publication ${point.number}, ${minute(point.time)}: ${format(point.value)}`));
      svg.append(dot);
    }
  }
  return svg;
}
