//! The agent's page at `/`, in a real Chromium. Where that is not installed its tests are skipped.
//!
//! GPUQUOTA_PICTURES=DIR keeps the pictures of the docs there: `cargo test --test page light_and_dark`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gpuquota_promises::{
    Agent, Browser, GIB, Machine, OUT_OF_MEMORY, Program, Scratch, Verdict, artifact, trials,
};
use serde_json::{Value, json};

/// Keys, as WebDriver writes them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// One for all tests: it takes longer to start than they do.
static BROWSER: Mutex<Option<Result<Browser, String>>> = Mutex::new(None);

/// A node for those tests that leave it as it is.
static NODE: Mutex<Option<Node>> = Mutex::new(None);

fn browser() -> MutexGuard<'static, Option<Result<Browser, String>>> {
    BROWSER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> ExitCode {
    let code = trials(&[
        ("the_page_shows_devices_pods_and_containers_beside_their_limits", || with_node(shows_the_node)),
        ("why_on_the_page_answers_as_the_tool_does", || with_node(answers_why)),
        ("the_page_works_by_keyboard_and_says_to_a_screen_reader_what_is_what", || {
            with_node(works_by_keyboard)
        }),
        ("two_hundred_containers_are_shown_sorted_and_filtered", || with(shows_two_hundred)),
        ("a_connection_that_is_lost_is_told_and_made_again", || with(comes_again)),
        ("a_name_that_a_tenant_chose_is_text_and_nothing_else", || with(shows_names_as_text)),
        ("the_page_asks_for_a_token_where_one_is_needed_and_the_tab_keeps_it", || with(asks_for_the_token)),
        ("the_page_asks_nobody_but_its_agent_and_can_be_read_in_light_and_dark", || with_node(can_be_read)),
    ]);
    // They end with the tests.
    drop(browser().take());
    drop(NODE.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

fn with(look: fn(&Browser)) -> Verdict {
    let mut browser = browser();
    match browser.get_or_insert_with(Browser::start) {
        Ok(browser) => look(browser),
        Err(why) => return Verdict::Skipped(why.clone()),
    }
    Verdict::Kept
}

/// The same with the page of the shared node.
fn with_node(look: fn(&Browser, &mut Node)) -> Verdict {
    let mut browser = browser();
    match browser.get_or_insert_with(Browser::start) {
        Ok(browser) => {
            let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
            let node = node.get_or_insert_with(Node::start);
            node.open(browser);
            look(browser, node);
        }
        Err(why) => return Verdict::Skipped(why.clone()),
    }
    Verdict::Kept
}

/// A node of two cards with four containers, of which three are in pods.
struct Node {
    agent: Agent,
    programs: Vec<Program>,
    home: Scratch,
    _machine: Machine,
}

/// Pod, container, memory, share, and what the program does.
const CONTAINERS: [(&str, &str, &str, u32, &[&str]); 4] = [
    ("team_web-0_0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", "serve", "4GiB", 0, &["hold"]),
    ("team_web-0_0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", "side", "1GiB", 0, &["hold"]),
    (
        "lab_train-7_1f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f",
        "main",
        "20GiB",
        30,
        &["launch_loop", "busy_5ms", "told"],
    ),
    ("", "notebook", "8GiB", 0, &["hold"]),
];

impl Node {
    fn start() -> Self {
        let (machine, home) = (Machine::new("2xH100"), Scratch::new());
        let logs = home.path().join("logs");
        let start = |(pod, name, memory, share, words): (&str, &str, &str, u32, &[&str])| {
            let folder = match pod.rsplit_once('_') {
                Some((_, uid)) => home.path().join(format!("containers/{uid}_{name}")),
                None => home.path().join("containers"),
            };
            std::fs::create_dir_all(logs.join(pod)).expect("a folder");
            std::fs::create_dir_all(&folder).expect("a folder");
            let quota =
                machine.quota().memory(memory).with("GPUQUOTA_REGION", folder.join(format!("{name}.cache")));
            let quota = quota
                .with("GPUQUOTA_POLICY", "fixed-share")
                .with("CUDA_VISIBLE_DEVICES", if pod.starts_with("team") { "0" } else { "1" });
            let quota = if share == 0 { quota } else { quota.cores(share) };
            quota.start(words[0], &words[1..])
        };
        let mut programs: Vec<Program> = CONTAINERS.into_iter().map(start).collect();
        for program in [0, 1, 3] {
            programs[program].wait_for("pid");
        }
        programs[2].wait_for("ready");
        assert_eq!(programs[0].ask(&format!("alloc {}", 3 * GIB), "rc"), 0);
        assert_eq!(programs[0].ask(&format!("alloc {}", 2 * GIB), "rc"), OUT_OF_MEMORY);
        assert_eq!(programs[3].ask(&format!("alloc {}", 2 * GIB), "rc"), 0);
        let containers = home.path().join("containers");
        let flags = ["--pod-logs", logs.to_str().expect("text")];
        let agent = Agent::on_with(&machine, &[&containers], &flags);
        Self { agent, programs, home, _machine: machine }
    }

    fn open(&self, browser: &Browser) {
        // The agent of the page of before is gone.
        browser.open("about:blank");
        browser.complaints();
        browser.open(&format!("http://{}/", self.agent.address()));
        browser.shows("#state", &["Live."]);
        browser.until("return document.querySelectorAll('#containers tbody tr').length > 5");
    }
}

/// The row of a container, as words of a selector in JavaScript.
fn row(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('#containers tbody tr')].find((row) => row.cells[0].innerText === {})",
        json!(name)
    )
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

fn cells(browser: &Browser, name: &str) -> Vec<String> {
    let told = browser.run(&format!("return [...{}.cells].map((cell) => cell.innerText)", row(name)));
    told.as_array().expect("cells").iter().map(|cell| cell.as_str().unwrap_or("").to_owned()).collect()
}

fn shows_the_node(browser: &Browser, node: &mut Node) {
    let devices = browser.shows(
        "#devices",
        &["0 NVIDIA H100", "1 NVIDIA H100", "of 80.00 GiB", "5.00 GiB", "28.00 GiB", "30%"],
    );
    has(&devices, &["°C", " W", "well"]);
    let text =
        browser.shows("#containers", &["team/web-0", "serve", "side", "lab/train-7", "main", "notebook"]);
    has(&text, &[", share 30%", "no share", "of 4.00 GiB"]);
    let serve = cells(browser, "serve");
    assert!(serve[2].starts_with("3.") && serve[2].contains("(8"), "{serve:?}");
    assert_eq!((&serve[5], &serve[6]), (&"1".to_owned(), &"1".to_owned()), "{serve:?}");
    // The bar says the same as the text.
    let bar =
        browser.run(&format!("return parseFloat({}.querySelector('.bar i').style.width)", row("serve")));
    assert!(bar.as_f64().is_some_and(|part| (75.0..95.0).contains(&part)), "{bar}");
    // Pods stand over their containers, and events say what has happened.
    let order = browser
        .run("return [...document.querySelectorAll('#containers tbody th')].map((cell) => cell.innerText)");
    assert_eq!(order, json!(["lab/train-7", "main", "notebook", "team/web-0", "serve", "side"]));
    browser.shows("#events", &["GQ101", "team/web-0/serve", "requested=2.00GiB"]);
    // It follows the node by itself.
    assert_eq!(node.programs[3].ask(&format!("alloc {}", 4 * GIB), "rc"), 0);
    browser.until(&format!("return {}.cells[2].innerText.startsWith('6.')", row("notebook")));
    browser.until(&format!("return parseInt({}.cells[4].innerText) > 0", row("main")));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn answers_why(browser: &Browser, node: &mut Node) {
    browser.click("[aria-label='Why? team/web-0/serve']");
    let text = browser.shows("tr.answers", &["GQ30", "Next: "]);
    let mut command = Command::new(artifact("gpuquota"));
    command.args(["why", "team/web-0/serve", "--json", "--agent", &node.agent.address().to_string()]);
    let told = Program::start(command).finish().success();
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    let answers = told["answers"].as_array().expect("answers");
    assert!(!answers.is_empty());
    for answer in answers {
        let of = |field: &str| answer[field].as_str().expect("a sentence").to_owned();
        has(&text, &[&of("code"), &of("title"), &of("says"), &of("next")]);
    }
    // It closes again.
    browser.click("[aria-label='Why? team/web-0/serve']");
    browser.until("return document.querySelector('tr.answers') === null");
}

fn works_by_keyboard(browser: &Browser, _: &mut Node) {
    let focus = || {
        browser.run(
            "return document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent",
        )
    };
    browser.press(TAB);
    assert_eq!(focus(), "To the containers");
    let mut steps = 0;
    while focus() != "Why? notebook" {
        browser.press(TAB);
        steps += 1;
        assert!(steps < 20, "the keyboard does not reach it: {:?}", focus());
    }
    browser.press(ENTER);
    browser.shows("tr.answers", &["GQ3"]);
    assert_eq!(focus(), "Why? notebook", "the focus stays where it was");
    assert_eq!(browser.run("return document.activeElement.getAttribute('aria-expanded')"), "true");
    // What is focused can be seen.
    assert_ne!(browser.run("return getComputedStyle(document.activeElement).outlineStyle"), "none");
    browser.press(ENTER);
    browser.until("return document.querySelector('tr.answers') === null");
    for (selector, role, name) in [
        ("#devices", "table", "What each card has to do"),
        ("#containers", "table", "What each container has of a device"),
        ("#events", "table", "The newest events"),
        ("#state", "status", ""),
        ("#filter", "searchbox", "Filter by name"),
        ("[data-sort=denied]", "button", "Refusals"),
        ("main section", "region", "Devices"),
    ] {
        let spoken = browser.spoken(selector);
        assert!(spoken.0 == role && spoken.1.starts_with(name), "{selector}: {spoken:?}");
    }
    // Sorting is told, and bars are not read out beside their text.
    browser.click("[data-sort=denied]");
    let sorted = browser
        .run("return document.querySelector('[data-sort=denied]').parentElement.getAttribute('aria-sort')");
    assert_eq!(sorted, "descending");
    assert_eq!(browser.run("return document.querySelectorAll('.bar:not([aria-hidden=true])').length"), 0);
    // What changes each second is not read out: only the state of the connection is, and an answer that was asked for.
    assert_eq!(
        browser.run("return document.querySelectorAll('[aria-live], [role=status], [role=alert]').length"),
        1
    );
}

/// A region of a container that once was, under these names. Only what is used of it is written.
fn copies(node: &Node, names: impl IntoIterator<Item = String>) {
    let folder = node.home.path().join("containers");
    let region = std::fs::read(folder.join("notebook.cache")).expect("a region");
    for name in names {
        let copy = File::create(folder.join(format!("{name}.cache"))).expect("a copy");
        copy.set_len(region.len() as u64).expect("its size");
        for (page, bytes) in
            region.chunks(4096).enumerate().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
        {
            copy.write_all_at(bytes, page as u64 * 4096).expect("written");
        }
    }
}

fn shows_two_hundred(browser: &Browser) {
    let node = Node::start();
    copies(&node, (0..196).map(|number| format!("copy-{number:03}")));
    node.open(browser);
    browser.shows("#shown", &["200 containers"]);
    // The page keeps up: it draws what comes within a tenth of a second.
    let took = browser.run("const begun = performance.now(); document.getElementById('filter').dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - begun");
    assert!(took.as_f64().is_some_and(|took| took < 100.0), "{took} ms to draw");
    let taken = browser.text("#taken");
    browser.until(&format!("return document.querySelector('#taken').innerText !== {}", json!(taken)));
    browser.type_in("#filter", "copy-19");
    browser.shows("#shown", &["6 of 200 containers"]);
    assert_eq!(browser.run("return document.querySelectorAll('#containers tbody tr').length"), 6);
    browser.run("document.getElementById('filter').value = ''");
    browser.click("[data-sort=denied]");
    browser.until(&format!("return {}", row("copy-000")));
    let first =
        browser.run("return document.querySelector('#containers tbody tr:not(.pod)').cells[0].innerText");
    assert_eq!(first, "serve", "whose request was refused comes first");
    // The last one can be asked about.
    browser.click("[aria-label='Why? copy-195']");
    browser.shows("tr.answers", &["GQ3", "No living process"]);
    browser.type_in("#filter", "nobody");
    browser.shows("#none", &["No name fits"]);
}

fn comes_again(browser: &Browser) {
    let node = Node::start();
    let address = node.agent.address();
    node.open(browser);
    let Node { agent, programs: _programs, home, _machine } = node;
    drop(agent);
    let begun = Instant::now();
    browser.shows("#state", &["connection is lost", "old", "Trying again"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The old figures stay.
    has(&browser.text("#containers"), &["notebook", "of 8.00 GiB"]);
    let _again = Agent::at(address, &[&home.path().join("containers")]);
    browser.shows("#state", &["Live."]);
    browser.until("return document.body.className === 'live'");
}

fn shows_names_as_text(browser: &Browser) {
    let node = Node::start();
    let hostile = [
        "<img src=x onerror=\"document.title='taken'\">",
        "<script>document.title='taken'<",
        "\"><b onmouseover=alert(1)>bold",
        "{{constructor}}${7*7}&lt;b&gt;&amp;",
        "__proto__",
        "\u{1f4a9}\u{5d0}\u{5d1}",
    ];
    copies(&node, hostile.map(str::to_owned));
    node.open(browser);
    for name in hostile {
        let found = browser.until(&format!("return {} !== undefined", row(name)));
        assert_eq!(found, true, "{name}");
    }
    // Also where it is asked about.
    browser.until("document.querySelector('[aria-label*=\"onmouseover\"]').click(); return true");
    browser.shows("tr.answers", &["GQ3"]);
    let foreign =
        browser.run("return [document.title, document.querySelectorAll('img, b, script:not([src])').length]");
    assert_eq!(foreign, json!(["gpuquota", 0]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // And if it were put in as HTML, the browser would refuse it.
    let refused = browser
        .run("try { document.body.innerHTML = '<p>'; return false } catch (error) { return error.name }");
    assert_eq!(refused, "TypeError");
    browser.complaints();
}

fn asks_for_the_token(browser: &Browser) {
    let home = Scratch::new();
    let file = home.file("token", "a-secret-word\n");
    let agent = Agent::with(&[home.path()], &["--token-file", file.to_str().expect("text")]);
    let address = format!("http://{}/", agent.address());
    browser.open(&address);
    browser.shows("#state", &["wants a token"]);
    browser.shows("#ask", &["token-file"]);
    assert_eq!(browser.run("return document.activeElement.id"), "token");
    browser.press(&format!("wrong{ENTER}"));
    browser.shows("#ask", &["does not take this token"]);
    browser.press(&format!("a-secret-word{ENTER}"));
    browser.shows("#state", &["Live."]);
    browser.shows("main", &["No container of this node has a quota."]);
    // The tab keeps it, and nothing else does.
    browser.open(&address);
    browser.shows("#state", &["Live."]);
    assert_eq!(
        browser.run("return [localStorage.length, document.cookie, location.search]"),
        json!([0, "", ""])
    );
    browser.click("#forget");
    browser.shows("#state", &["wants a token"]);
    assert_eq!(browser.run("return sessionStorage.length"), 0);
    browser.complaints();
}

/// The least contrast of a text with what lies behind it, as WCAG reckons it, and whose it is.
const CONTRAST: &str = "
const channels = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
};
let least = [99, ''];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.matches('script, noscript')) continue;
  const pair = [light(channels(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (ratio < least[0]) least = [ratio, element.outerHTML.slice(0, 200)];
}
return least";

fn can_be_read(browser: &Browser, _: &mut Node) {
    browser.click("[aria-label='Why? team/web-0/serve']");
    browser.shows("tr.answers", &["GQ30"]);
    browser.until(&format!("return parseInt({}.cells[4].innerText) > 0", row("main")));
    browser.until(
        "return document.querySelector('#devices tbody tr:last-child').cells[2].innerText.trim() !== '0%'",
    );
    browser.size(1280, 1120);
    browser.run("document.activeElement.blur()");
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        let least = browser.run(CONTRAST);
        assert!(least[0].as_f64().is_some_and(|ratio| ratio >= 4.5), "{scheme}: {least}");
        grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
        if let Some(folder) = std::env::var_os("GPUQUOTA_PICTURES") {
            browser.picture(&Path::new(&folder).join(format!("page-{scheme}.png")));
        }
    }
    assert_ne!(grounds[0], grounds[1], "light and dark are the same");
    // In a narrow window the tables scroll, and the page does not.
    browser.size(500, 900);
    let over =
        browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    browser.size(1280, 900);
    assert_eq!(over, 0);
    let elsewhere = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => !name.startsWith(location.origin + '/') && !name.startsWith('data:'))");
    assert_eq!(elsewhere, json!([]));
}
