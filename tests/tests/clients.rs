//! Real software, unmodified: on the simulated machine as it is, and under the quota. Below the cap it behaves the same,
//! above the cap it reports its own out-of-memory error, and none of it falls back to the CPU.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use gpuquota_promises::{
    GIB, Machine, Outcome, Program, Promise, Scratch, Setting, Verdict, client, fetched, trials,
};

const CAP: i64 = 8 * GIB;
/// Low enough that clients wait for it, captures and collectives among them.
const SHARE: u32 = 50;
/// First runs compile kernels; the machine may be small and busy.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    trials(&[
        ("pytorch_with_its_own_allocator", || {
            Promise::to(&["HAMi-core#55"]).asserts(|| torch("backend:native"))
        }),
        ("pytorch_with_expandable_segments", || {
            Promise::to(&["HAMi-core#172"]).asserts(|| torch("expandable_segments:True"))
        }),
        ("pytorch_with_cuda_malloc_async", || torch("backend:cudaMallocAsync")),
        ("the_books_of_two_pytorchs_ours_and_the_device_s_agree", books),
        ("pytorch_compiles_with_triton", || python("torch", "torch_compile.py").alike("H100", sees_the_cap)),
        ("pytorch_shares_tensors_between_processes", || {
            python("torch", "torch_sharing.py").alike("H100", sees_the_cap)
        }),
        ("nccl_with_one_rank", || {
            Promise::to(&["HAMi#2641"])
                .asserts(|| python("torch", "torch_distributed.py").alike("H100", sees_the_cap))
        }),
        ("nccl_with_two_ranks_on_two_devices", || {
            let alike = || python("torch", "torch_distributed.py").alike("2xH100", sees_the_cap);
            Promise::to(&["HAMi-core#142", "HAMi#2641"]).asserts(alike)
        }),
        ("cupy", || {
            python("torch", "cupy_client.py")
                .refused_by("cupy.cuda.memory.OutOfMemoryError")
                .alike("H100", sees_the_cap)
        }),
        ("numba", || {
            python("torch", "numba_client.py")
                .refused_by("numba.cuda.cudadrv.driver.CudaAPIError")
                .alike("H100", sees_the_cap)
        }),
        ("cuda_bindings", || {
            python("torch", "bindings_client.py")
                .refused_by("CUDA_ERROR_OUT_OF_MEMORY")
                .alike("H100", sees_the_cap)
        }),
        ("jax", jax),
        ("cudarc", || {
            compiled("cudarc_client").refused_by("CUDA_ERROR_OUT_OF_MEMORY").alike("H100", sees_the_cap)
        }),
        ("nvml_wrapper", nvml_wrapper),
        ("gpustat", || Promise::to(&["nvtop#110"]).asserts(gpustat)),
        ("nvitop", || Promise::to(&["nvtop#110"]).asserts(nvitop)),
        ("nvtop", || Promise::to(&["nvtop#110"]).asserts(nvtop)),
        ("btop", || Promise::to(&["nvtop#110"]).asserts(btop)),
    ])
}

/// A client program and its expected results.
struct Client {
    /// The command, or the reason why this machine has none.
    command: Result<Vec<PathBuf>, String>,
    variables: Vec<(&'static str, &'static str)>,
    /// The error that it gets when the device is full.
    refusal: Option<&'static str>,
}

/// A script in the environment of this name.
fn python(environment: &str, script: &str) -> Client {
    let command = fetched("client-environment", environment);
    let command = command.map(|home| vec![home.join("bin/python"), client(script)]);
    Client { command, variables: Vec::new(), refusal: None }
}

fn compiled(name: &str) -> Client {
    Client { command: Ok(vec![client(name)]), variables: Vec::new(), refusal: None }
}

impl Client {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    fn refused_by(mut self, refusal: &'static str) -> Self {
        self.refusal = Some(refusal);
        self
    }

    fn run(&self, setting: Setting<'_>) -> Outcome {
        let command = self.command.as_ref().expect("asked before");
        // A fresh cache makes the client compile again.
        let cache = Scratch::new();
        let mut setting =
            setting.with("TORCHINDUCTOR_CACHE_DIR", cache.path()).with("TRITON_CACHE_DIR", cache.path());
        for (name, value) in &self.variables {
            setting = setting.with(name, *value);
        }
        let arguments: Vec<_> =
            command[1..].iter().map(|argument| argument.to_str().expect("text")).collect();
        Program::start(setting.command(&command[0], &arguments)).timeout(PATIENCE).finish().success()
    }

    /// The client behaves the same with and without the quota of memory and time, the device itself saw its work both
    /// times, and `and` holds for its outputs: bare, and under the quota.
    fn alike(&self, kind: &str, and: fn(&Outcome, &Outcome)) -> Verdict {
        if let Err(why) = &self.command {
            return Verdict::Skipped(why.clone());
        }
        let machine = Machine::new(kind);
        let bare = self.run(machine.bare());
        worked(&machine, &bare);
        assert!(machine.truth().device("requested_peak_bytes") > CAP || self.refusal.is_none(), "{bare}");

        let machine = Machine::new(kind);
        let quota = self.run(machine.quota().memory(CAP).cores(SHARE));
        worked(&machine, &quota);
        assert!(machine.truth().device("requested_peak_bytes") <= CAP, "the cap was passed: {quota}");
        assert_eq!(
            behaviour(&quota),
            behaviour(&bare),
            "it behaves differently under the quota:\n{bare}\n{quota}"
        );
        if let Some(refusal) = self.refusal {
            assert_eq!(quota.text("refusal"), refusal, "{quota}");
            assert!((CAP / 2..=CAP).contains(&quota.value("held")), "{quota}");
        }
        and(&bare, &quota);
        Verdict::Kept
    }
}

/// The device itself saw kernels, so the client has not fallen back to the CPU.
#[track_caller]
fn worked(machine: &Machine, outcome: &Outcome) {
    assert!(machine.truth().device("kernels") > 0, "no kernel ever ran: {outcome}");
    assert_eq!(outcome.text("device"), "NVIDIA H100 80GB HBM3", "{outcome}");
}

/// A client's output without sizes, which depend on the cap.
fn behaviour(outcome: &Outcome) -> Vec<&(String, String)> {
    let sizes = ["total", "held", "limit"];
    outcome.said().iter().filter(|(key, _)| !sizes.contains(&key.as_str())).collect()
}

fn sees_the_cap(bare: &Outcome, quota: &Outcome) {
    assert!(bare.value("total") > CAP, "{bare}");
    assert_eq!(quota.value("total"), CAP, "{quota}");
}

fn torch(allocator: &'static str) -> Verdict {
    let client = python("torch", "torch_client.py").with("PYTORCH_ALLOC_CONF", allocator);
    client.refused_by("torch.OutOfMemoryError").alike("H100", sees_the_cap)
}

/// Two processes under one cap: PyTorch's own count of reserved bytes equals our charge for allocations and the device's
/// count, to the byte. When one process gives memory back to the driver, the other can allocate it.
fn books() -> Verdict {
    let Client { command, .. } = python("torch", "torch_books.py");
    let command = match command {
        Ok(command) => command,
        Err(why) => return Verdict::Skipped(why),
    };
    for allocator in ["backend:native", "expandable_segments:True", "backend:cudaMallocAsync"] {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP).cores(SHARE).with("PYTORCH_ALLOC_CONF", allocator);
        let start = || {
            let script = command[1].to_str().expect("text");
            Program::start(quota.command(&command[0], &[script])).timeout(PATIENCE)
        };
        let mut both = [start(), start()];
        both.iter_mut().for_each(|one| _ = one.wait_for("ready"));
        let agree = |both: &mut [Program; 2], held: [i64; 2], answer: [i64; 2]| {
            let mut reserved = 0;
            for ((one, held), answer) in both.iter_mut().zip(held).zip(answer) {
                let words = match held {
                    0 => vec!["drop".to_owned(), "release".to_owned()],
                    held => vec![format!("hold {held}")],
                };
                let mut last = 0;
                for word in words {
                    one.tell(&word);
                    last = one.wait_for("reserved");
                    assert_eq!(one.wait_for("answer"), answer, "{allocator}: {word}");
                }
                reserved += last;
            }
            let told = quota.inspect();
            let shares = told["processes"].as_array().expect("a list").iter();
            let books = shares.flat_map(|process| {
                ["data_bytes", "pool_bytes"].map(|key| process["devices"][0][key].as_i64())
            });
            let books: i64 = books.flatten().sum();
            assert_eq!(reserved, books, "{allocator}: {told:#}");
            if allocator != "backend:cudaMallocAsync" {
                assert_eq!(books, machine.truth().device("requested_bytes"), "{allocator}: {told:#}");
            }
            assert!(books <= CAP, "{allocator}: {told:#}");
        };
        agree(&mut both, [1000, 2500], [0, 0]);
        agree(&mut both, [6000, 6000], [2, 2]);
        agree(&mut both, [2000, 0], [0, 0]);
        agree(&mut both, [2500, 100], [0, 0]);
        agree(&mut both, [0, 0], [0, 0]);
        both.into_iter().for_each(|one| _ = one.finish().success());
        assert!(machine.truth().device("requested_peak_bytes") <= CAP, "{allocator}");
    }
    Verdict::Kept
}

/// JAX takes three quarters of the memory that the view shows, and runs out of them.
fn jax() -> Verdict {
    let client = python("jax", "jax_client.py").refused_by("jax.errors.JaxRuntimeError");
    client.alike("H100", |bare, quota| {
        assert!(bare.value("limit") > CAP, "{bare}");
        assert_eq!(quota.value("limit"), CAP / 4 * 3, "{quota}");
    })
}

/// What a monitoring tool has to show.
struct Seen {
    total: i64,
    /// The device's processes, as far as the tool may see them.
    pids: Vec<i64>,
    /// The least and the most percent of the time that it may show as busy.
    busy: std::ops::RangeInclusive<i64>,
}

/// Runs a monitoring tool, bare and under the quota, while a process there holds 1 GiB and a neighbour never rests.
fn beside_a_holder(look: impl Fn(&Setting<'_>, &Seen)) {
    let machine = Machine::new("H100");
    let mut neighbour = machine.bare().start("launch_loop", &["busy_5ms", "600"]);
    let other = neighbour.wait_for("ready");
    let total = machine.truth().device("total_bytes");
    for (setting, total, others, busy) in
        [(machine.bare(), total, vec![other], 80..=100), (machine.quota().memory(CAP), CAP, vec![], 0..=0)]
    {
        let mut holder = setting.start("hold", &[]);
        let mut pids = vec![holder.wait_for("pid")];
        assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
        pids.extend(others);
        pids.sort_unstable();
        std::thread::sleep(Duration::from_millis(500));
        look(&setting, &Seen { total, pids, busy });
        holder.finish().success();
    }
    neighbour.kill();
}

fn nvml_wrapper() -> Verdict {
    beside_a_holder(|setting, seen| {
        let path = client("nvml_client");
        let said = setting.run_command(path.to_str().expect("text"), &[]).success();
        assert_eq!(said.text("device"), "NVIDIA H100 80GB HBM3", "{said}");
        assert_eq!(said.value("total"), seen.total, "{said}");
        assert!(said.value("used") >= GIB && said.value("used") + said.value("free") <= seen.total, "{said}");
        assert_eq!(said.value("processes"), seen.pids.len() as i64, "{said}");
    });
    Verdict::Kept
}

/// A command of the environment with PyTorch.
fn tool(name: &str) -> Result<String, String> {
    let home = fetched("client-environment", "torch")?;
    Ok(home.join("bin").join(name).to_str().expect("text").to_owned())
}

/// One of Debian's tools.
fn debian_tool(name: &str) -> Result<String, String> {
    let home = fetched("debian-tools", "")?;
    Ok(home.join(name).to_str().expect("text").to_owned())
}

/// Looks with a tool beside a holder, if the tool is there.
fn monitored(tool: Result<String, String>, look: impl Fn(&Setting<'_>, &str, &Seen)) -> Verdict {
    match tool {
        Ok(tool) => beside_a_holder(|setting, seen| look(setting, &tool, seen)),
        Err(why) => return Verdict::Skipped(why),
    }
    Verdict::Kept
}

#[track_caller]
fn json(answer: &Outcome) -> serde_json::Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|why| panic!("{why}: {answer}"))
}

/// The number before a sign in a text.
fn number_before(text: &str, sign: char) -> Option<i64> {
    let before = text.split(sign).next()?;
    before.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn gpustat() -> Verdict {
    monitored(tool("gpustat"), |setting, tool, seen| {
        let answer = setting.run_command(tool, &["--json"]).success();
        let all = json(&answer);
        let device = &all["gpus"][0];
        assert_eq!(device["memory.total"].as_i64(), Some(seen.total >> 20), "{answer}");
        assert!(device["memory.used"].as_i64() >= Some(1024), "{answer}");
        assert!(device["utilization.gpu"].as_i64().is_some_and(|gpu| seen.busy.contains(&gpu)), "{answer}");
        let listed = device["processes"].as_array().expect("a list").iter();
        let mut pids: Vec<_> = listed.map(|process| process["pid"].as_i64().expect("a pid")).collect();
        pids.sort_unstable();
        assert_eq!(pids, seen.pids, "{answer}");
    })
}

fn nvitop() -> Verdict {
    monitored(tool("nvitop"), |setting, tool, seen| {
        let answer = setting.run_command(tool, &["--once"]).success();
        let size =
            if seen.total >= 80 * GIB { "80.00GiB".to_owned() } else { format!("{}MiB", seen.total >> 20) };
        let line = answer.out.lines().find(|line| line.contains(&format!("/ {size}")));
        let line = line.unwrap_or_else(|| panic!("{answer}"));
        let busy = line.split(&size).nth(1).and_then(|rest| number_before(rest, '%'));
        assert!(busy.is_some_and(|busy| seen.busy.contains(&busy)), "{answer}");
        for pid in &seen.pids {
            assert!(answer.out.split_whitespace().any(|word| word == pid.to_string()), "{answer}");
        }
        let lines = answer.out.lines().filter(|line| line.contains("MiB") && line.contains(" C "));
        assert_eq!(lines.count(), seen.pids.len(), "{answer}");
    })
}

fn nvtop() -> Verdict {
    monitored(debian_tool("nvtop"), |setting, tool, seen| {
        let answer = setting.run_command(tool, &["-s"]).success();
        let device = &json(&answer)[0];
        let percent = |key: &str| device[key].as_str().and_then(|text| number_before(text, '%'));
        assert!(percent("gpu_util").is_some_and(|gpu| seen.busy.contains(&gpu)), "{answer}");
        // The holder has 1 GiB and a context.
        let least = GIB * 100 / seen.total;
        assert!(
            percent("mem_util").is_some_and(|memory| (least..=2 * least + 2).contains(&memory)),
            "{answer}"
        );
    })
}

/// It draws on a terminal, again and again; the figures of its last picture count.
fn btop() -> Verdict {
    monitored(debian_tool("btop"), |setting, tool, seen| {
        let home = Scratch::new();
        std::fs::create_dir(home.path().join("btop")).expect("a folder");
        home.file("btop/btop.conf", "shown_boxes = \"gpu0\"\nupdate_ms = 500\n");
        let home = home.path().to_str().expect("text");
        let script = format!(
            "TERM=xterm HOME={home} XDG_CONFIG_HOME={home} timeout 3 script -qec 'stty cols 120 rows 30; {tool} --utf-force' /dev/null"
        );
        let answer = setting.run_command("sh", &["-c", &script]);
        let figure = |name: &str, sign: char| {
            let behind = answer.out.rsplit(name).next().expect("a text has a last part");
            number_before(&without_escapes(behind), sign)
        };
        assert!(figure("GPU", '%').is_some_and(|busy| seen.busy.contains(&busy)), "{answer}");
        assert_eq!(figure("Total:", '.'), Some(seen.total >> 30), "{answer}");
    })
}

/// A text without what moves the cursor and sets colours.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit() || ";?".contains(letter));
        all + rest.get(1..).unwrap_or_default()
    })
}
