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

// Calls told() after every change, and keeps trying while the service is away.
export async function listen(told, gone) {
  for (;;) {
    try {
      const answer = await fetch("/v1/stream", { headers: headers() });
      if (!answer.ok) throw new Error(`stream: ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const end = text.lastIndexOf("\n\n");
        if (end < 0) continue;
        const events = text.slice(0, end).split("\n\n");
        text = text.slice(end + 2);
        if (events.some((event) => event.includes("event: margins"))) await told();
      }
    } catch (error) {
      gone(error);
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
