// What is asked of the agent, with the token where it wants one. This tab keeps the token, and nothing else does.

export const at = (id) => document.getElementById(id);

/** Puts a text into an element, if it is another one. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** How the connection is, for the reader: what is said again is not read out again. */
export function say(kind, text) {
  document.body.className = kind;
  put(at("state"), text);
}

const KEY = "gpuquota-token";
let token = sessionStorage.getItem(KEY) ?? "";
let given = null;

function keep(word) {
  token = word;
  if (word) sessionStorage.setItem(KEY, word);
  else sessionStorage.removeItem(KEY);
  at("forget").hidden = !word;
}

at("forget").hidden = !token;
at("forget").addEventListener("click", () => {
  keep("");
  location.reload();
});

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(at("token").value.trim());
  at("token").value = "";
  at("ask").hidden = true;
  given?.();
});

/** Asks the reader for a token, and comes back when there is one to try. */
export async function askForToken() {
  if (token) put(at("refused"), "The agent does not take this token. It is the word in the file that its setting token-file names.");
  keep("");
  at("main").hidden = true;
  at("ask").hidden = false;
  say("idle", "The agent wants a token.");
  at("token").focus();
  await new Promise((resolve) => (given = resolve));
}

/** Asks the agent. */
export function ask(path, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
}
