// How the page asks the service: with the key of this tab, and once again when margins change.

const KEY = "margincast-key";

export class NoKey extends Error {}

export function keep(key) {
  sessionStorage.setItem(KEY, key);
}

export function forget() {
  sessionStorage.removeItem(KEY);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

export async function ask(path) {
  const answer = await fetch(path, { headers: headers() });
  if (answer.status === 401 || answer.status === 403) throw new NoKey((await answer.json()).detail);
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer.json();
}

const SILENCE = 40_000; // milliseconds; the service says something every 15 s
const PAUSE = 2_000;

// Calls told() after every change, and gone() while the service is away. Where there is no stream
// (no key any more, none free, nothing published) it is told() now and then: who asks finds out.
export async function listen(told, gone) {
  for (;;) {
    const leaving = new AbortController();
    let silent = setTimeout(() => leaving.abort(), SILENCE);
    try {
      const answer = await fetch("/v1/stream", { headers: headers(), signal: leaving.signal });
      if (!answer.ok) {
        await told();
        continue;
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(silent);
        silent = setTimeout(() => leaving.abort(), SILENCE);
        text += value;
        const end = text.lastIndexOf("\n\n");
        if (end < 0) continue;
        const events = text.slice(0, end).split("\n\n");
        text = text.slice(end + 2);
        if (events.some((event) => event.includes("event: margins"))) await told();
      }
    } catch (error) {
      gone(error instanceof TypeError || error.name === "AbortError" ? new Error("the service does not answer") : error);
    } finally {
      clearTimeout(silent);
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}
