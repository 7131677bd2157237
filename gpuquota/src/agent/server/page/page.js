// The page of gpuquota's agent: what /api/v1/live says, as it comes. It is fetched, because an EventSource cannot bring a token.

import { ask, askForToken, say } from "./ask.js";
import { show } from "./show.js";

/** The agent tells something each second, and takes ten for a look at the most. */
const LONGEST_SILENCE = 12000;
/** How long after a failure it is tried again; the last one repeats. */
const PAUSES = [1000, 2000, 5000, 10000];

let isShown = false;
let wake = null;
const pause = (time) => new Promise((resolve) => {
  const timer = setTimeout(resolve, time);
  wake = () => {
    clearTimeout(timer);
    resolve();
  };
});

/** Shows what comes until the stream ends. Answers whether there is a new token to try. */
async function follow(came) {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), LONGEST_SILENCE);
  try {
    const response = await ask("api/v1/live", abort.signal);
    if (response.status === 401) {
      clearTimeout(timer);
      await askForToken();
      return true;
    }
    if (!response.ok) throw new Error((await response.text()).trim());
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return false;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), LONGEST_SILENCE);
      const messages = (rest + value).split("\n\n");
      rest = messages.pop();
      // Only the newest one counts.
      const last = messages.filter((message) => message.includes("data:")).pop();
      if (!last || document.hidden) continue;
      const lines = last.split("\n").filter((line) => line.startsWith("data:"));
      show(JSON.parse(lines.map((line) => line.slice(5)).join("\n")));
      isShown = true;
      came();
    }
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

async function run() {
  let failures = 0;
  for (;;) {
    let why = "";
    try {
      const isNew = await follow(() => {
        failures = 0;
        say("live", "Live.");
      });
      if (isNew) continue;
    } catch (error) {
      why = error.message;
    }
    if (isShown) say("old", "The connection is lost; these figures are old. Trying again.");
    else say("old", `The agent does not answer${why ? `: ${why}` : ""}. Trying again.`);
    await pause(PAUSES[Math.min(failures, PAUSES.length - 1)]);
    failures += 1;
  }
}

addEventListener("online", () => wake?.());
document.addEventListener("visibilitychange", () => wake?.());
run();
