//! A plugin against a stub of a runtime: every call, and every way in which a runtime can fail.

mod common;

use common::{Runtime, framed};
use nri_plugin::{Adjust, Error, Events, Options, Plugin, Status, api, code};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A plugin that writes down what it is told.
#[derive(Default)]
struct Diary {
    lines: Mutex<Vec<String>>,
    runtime: Mutex<Option<nri_plugin::Runtime>>,
}

impl Diary {
    fn note(&self, line: impl Into<String>) {
        self.lines.lock().expect("lines").push(line.into());
    }

    /// Waits for a line that begins so.
    fn says(&self, beginning: &str) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let lines = self.lines.lock().expect("lines").clone();
            if let Some(line) = lines.iter().find(|line| line.starts_with(beginning)) {
                return line.clone();
            }
            assert!(Instant::now() < until, "{beginning} is not in {lines:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn name(container: Option<&api::Container>) -> &str {
    container.map_or("", |container| container.name.as_str())
}

impl Plugin for Diary {
    fn events(&self) -> Events {
        Events::CREATE_CONTAINER | Events::REMOVE_CONTAINER | Events::STOP_CONTAINER
    }

    fn configure(
        &self,
        request: &api::ConfigureRequest,
        runtime: &nri_plugin::Runtime,
    ) -> Result<(), Status> {
        *self.runtime.lock().expect("a place") = Some(runtime.clone());
        self.note(format!("configured by {} {}", request.runtime_name, request.runtime_version));
        Ok(())
    }

    fn synchronize(
        &self,
        pods: Vec<api::PodSandbox>,
        containers: Vec<api::Container>,
    ) -> Result<Vec<api::ContainerUpdate>, Status> {
        self.note(format!("{} pods, {} containers", pods.len(), containers.len()));
        let of = |container: api::Container| api::ContainerUpdate {
            container_id: container.id,
            ..api::ContainerUpdate::default()
        };
        Ok(containers.into_iter().map(of).collect())
    }

    fn create_container(
        &self,
        request: api::CreateContainerRequest,
    ) -> Result<api::CreateContainerResponse, Status> {
        let container = request.container.unwrap_or_default();
        if container.name == "wrong" {
            return Err(Status::new(code::INVALID_ARGUMENT, "no container may be called \"wrong\""));
        }
        if container.name == "slow" {
            std::thread::sleep(Duration::from_millis(200));
        }
        let size = container.args.first().and_then(|size| size.parse().ok()).unwrap_or(3);
        let mount = api::Mount {
            destination: "/there".into(),
            r#type: "bind".into(),
            source: "/here".into(),
            options: vec!["rbind".into(), "ro".into()],
        };
        let adjust = api::ContainerAdjustment::default()
            .with_variable("SIZE", &"x".repeat(size))
            .without_variable("GONE")
            .with_mount(mount)
            .without_mount("/old")
            .with_annotation("seen", "yes")
            .with_create_runtime_hook(api::Hook { path: "/hook".into(), ..api::Hook::default() });
        Ok(api::CreateContainerResponse { adjust: Some(adjust), ..Default::default() })
    }

    fn remove_container(&self, request: api::RemoveContainerRequest) -> Result<(), Status> {
        self.note(format!("removed {}", name(request.container.as_ref())));
        Ok(())
    }

    fn stop_container(
        &self,
        request: api::StopContainerRequest,
    ) -> Result<api::StopContainerResponse, Status> {
        self.note(format!("stopped {}", name(request.container.as_ref())));
        Ok(api::StopContainerResponse::default())
    }

    fn state_change(&self, event: api::StateChangeEvent) -> Result<(), Status> {
        self.note(format!("{:?} {}", event.event(), name(event.container.as_ref())));
        Ok(())
    }

    fn shutdown(&self) {
        self.note("shutdown");
    }

    fn disconnected(&self, error: &Error) {
        self.note(format!("disconnected: {error}"));
    }
}

/// A plugin that is kept connected to a socket for as long as this value lives.
struct Kept {
    diary: Arc<Diary>,
    socket: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Kept {
    fn new() -> Self {
        Self::with(Duration::from_secs(5))
    }

    fn with(patience: Duration) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nri-test-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let socket = std::env::temp_dir().join(name);
        let options = Options {
            socket: socket.clone(),
            patience,
            pauses: (Duration::from_millis(10), Duration::from_millis(100)),
            ..Options::new("diary", 7)
        };
        let diary = Arc::new(Diary::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let plugin = Arc::clone(&diary);
        runtime.spawn(async move { nri_plugin::keep(plugin, &options).await });
        Self { diary, socket, _runtime: runtime }
    }
}

fn container(name: &str) -> api::Container {
    api::Container { id: format!("id-{name}"), name: name.into(), ..api::Container::default() }
}

fn create(name: &str, size: usize) -> api::CreateContainerRequest {
    let container = api::Container { args: vec![size.to_string()], ..container(name) };
    api::CreateContainerRequest { pod: Some(api::PodSandbox::default()), container: Some(container) }
}

#[test]
fn a_plugin_registers_is_configured_and_adjusts_a_container() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let mut session = runtime.accept();
    let registered = session.register();
    assert_eq!((registered.plugin_name.as_str(), registered.plugin_idx.as_str()), ("diary", "07"));
    assert_eq!(session.configure(), 1 << 3 | 1 << 9 | 1 << 10);
    assert_eq!(kept.diary.says("configured"), "configured by stub v0");
    let answer: api::CreateContainerResponse =
        session.call("CreateContainer", &create("web", 3)).expect("adjusted");
    let adjust = answer.adjust.expect("an adjustment");
    let variables: Vec<_> = adjust.env.iter().map(|of| (of.key.as_str(), of.value.as_str())).collect();
    assert_eq!(variables, [("-SIZE", ""), ("SIZE", "xxx"), ("-GONE", "")]);
    let mounts: Vec<_> = adjust.mounts.iter().map(|of| of.destination.as_str()).collect();
    assert_eq!(mounts, ["-/there", "/there", "-/old"]);
    assert_eq!(adjust.annotations["seen"], "yes");
    assert_eq!(adjust.hooks.expect("hooks").create_runtime[0].path, "/hook");
}

#[test]
fn a_refusal_reaches_the_runtime_with_its_words() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let (mut session, _) = runtime.take_in();
    let refused = session.call::<api::CreateContainerResponse>("CreateContainer", &create("wrong", 1));
    assert_eq!(refused, Err((3, "no container may be called \"wrong\"".to_owned())));
    // The connection goes on.
    session.call::<api::CreateContainerResponse>("CreateContainer", &create("right", 1)).expect("adjusted");
}

#[test]
fn what_a_runtime_has_comes_in_parts_and_is_told_once() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let (mut session, _) = runtime.take_in();
    let part = |names: &[&str], more| api::SynchronizeRequest {
        pods: vec![api::PodSandbox::default()],
        containers: names.iter().map(|name| container(name)).collect(),
        more,
    };
    let first: api::SynchronizeResponse =
        session.call("Synchronize", &part(&["a", "b"], true)).expect("taken");
    assert!(first.more && first.update.is_empty());
    let last: api::SynchronizeResponse = session.call("Synchronize", &part(&["c"], false)).expect("taken");
    let updated: Vec<_> = last.update.iter().map(|update| update.container_id.as_str()).collect();
    assert_eq!((last.more, updated), (false, vec!["id-a", "id-b", "id-c"]));
    assert_eq!(kept.diary.says("2 pods"), "2 pods, 3 containers");
}

#[test]
fn events_of_newer_and_of_older_runtimes_are_the_same_to_a_plugin() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let (mut session, _) = runtime.take_in();
    let removed = api::RemoveContainerRequest { container: Some(container("new")), ..Default::default() };
    session.call::<api::RemoveContainerResponse>("RemoveContainer", &removed).expect("taken");
    let change = |event: api::Event, name: &str| api::StateChangeEvent {
        event: event.into(),
        container: Some(container(name)),
        ..Default::default()
    };
    let older = change(api::Event::RemoveContainer, "old");
    session.call::<api::Empty>("StateChange", &older).expect("taken");
    session.call::<api::Empty>("StateChange", &change(api::Event::StartContainer, "old")).expect("taken");
    let started = api::StartContainerRequest { container: Some(container("new")), ..Default::default() };
    session.call::<api::StartContainerResponse>("StartContainer", &started).expect("taken");
    let stop = api::StopContainerRequest { container: Some(container("new")), ..Default::default() };
    session.call::<api::StopContainerResponse>("StopContainer", &stop).expect("taken");
    session.call::<api::Empty>("Shutdown", &api::Empty {}).expect("taken");
    for line in
        ["removed new", "removed old", "StartContainer old", "StartContainer new", "stopped new", "shutdown"]
    {
        kept.diary.says(line);
    }
}

#[test]
fn what_a_plugin_does_not_know_it_says_so() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let (mut session, _) = runtime.take_in();
    let update = session.call::<api::Empty>("UpdateContainer", &api::UpdateContainerRequest::default());
    assert_eq!(update.expect_err("it has none").0, code::UNIMPLEMENTED);
    assert_eq!(
        session.call::<api::Empty>("NoSuch", &api::Empty {}).expect_err("none").0,
        code::UNIMPLEMENTED
    );
    let other = session.call_bytes("some.other.Service", "CreateContainer", &create("a", 1));
    session.stream.write_all(&other).expect("the plugin reads");
    assert_eq!(session.answered::<api::Empty>().1.expect_err("none").0, code::UNIMPLEMENTED);
    // A payload that is no such message: field 1 with a length beyond its end.
    let payload = api::OptionalString { value: "x".into() };
    let wrong = session.call::<api::Empty>("CreateContainer", &payload);
    assert_eq!(wrong.expect_err("no message").0, code::INVALID_ARGUMENT);
    session.stream.write_all(&framed(1, 99, 1, &[0xff; 5])).expect("the plugin reads");
    let (stream, wrong) = session.answered::<api::Empty>();
    assert_eq!((stream, wrong.expect_err("no message").0), (99, code::INVALID_ARGUMENT));
    session.call::<api::CreateContainerResponse>("CreateContainer", &create("right", 1)).expect("adjusted");
}

#[test]
fn a_long_answer_is_cut_as_containerd_reads_it() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let (mut session, _) = runtime.take_in();
    for size in [3900, 3990, 4000, 4010, 4096, 8100, 8192, 8300, 100_000, 4 << 20] {
        let answer = session.call::<api::CreateContainerResponse>("CreateContainer", &create("long", size));
        match answer {
            Ok(answer) => {
                let adjust = answer.adjust.expect("an adjustment");
                assert_eq!(adjust.env.iter().map(|of| of.value.len()).sum::<usize>(), size);
            }
            Err((code, message)) => assert_eq!((code, size), (code::INTERNAL, 4 << 20), "{message}"),
        }
    }
}

#[test]
fn a_plugin_asks_for_changes_of_its_own() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let (mut session, _) = runtime.take_in();
    kept.diary.says("configured");
    let handle = kept.diary.runtime.lock().expect("a place").clone().expect("a runtime");
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let update = vec![api::ContainerUpdate { container_id: "a".into(), ..Default::default() }];
        let request = api::UpdateContainersRequest { update, ..Default::default() };
        let failed = runtime.block_on(handle.update_containers(&request)).expect("an answer");
        let refused = runtime.block_on(handle.update_containers(&request)).expect_err("refused");
        (failed.len(), refused.to_string())
    });
    let (stream, request) = session.called::<api::UpdateContainersRequest>("UpdateContainers");
    assert_eq!(request.update[0].container_id, "a");
    session.answer(stream, &api::UpdateContainersResponse { failed: request.update });
    let (stream, _) = session.called::<api::UpdateContainersRequest>("UpdateContainers");
    session.refuse(stream, 9, "not now");
    let (failed, refused) = asking.join().expect("no panic");
    assert_eq!(failed, 1);
    assert!(refused.contains("not now"), "{refused}");
}

#[test]
fn a_runtime_that_is_started_anew_is_found_again() {
    let kept = Kept::new();
    for _ in 0..3 {
        let runtime = Runtime::at(&kept.socket);
        let (mut session, _) = runtime.take_in();
        session.call::<api::CreateContainerResponse>("CreateContainer", &create("a", 1)).expect("adjusted");
    }
    kept.diary.says("disconnected: the runtime has closed the connection");
}

#[test]
fn a_slow_runtime_is_waited_for_and_a_slow_plugin_holds_nobody_up() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let mut session = runtime.accept();
    let (stream, _) = session.called::<api::RegisterPluginRequest>("RegisterPlugin");
    std::thread::sleep(Duration::from_millis(300));
    session.answer(stream, &api::Empty {});
    std::thread::sleep(Duration::from_millis(300));
    session.configure();
    let bytes = session.call_bytes("nri.pkg.api.v1alpha1.Plugin", "CreateContainer", &create("a", 1));
    for byte in bytes {
        session.stream.write_all(&[byte]).expect("the plugin reads");
        std::thread::sleep(Duration::from_millis(2));
    }
    session.answered::<api::CreateContainerResponse>().1.expect("adjusted");
    // Of two containers the one that takes long does not keep the other waiting.
    let slow = session.begin("CreateContainer", &create("slow", 1));
    let quick = session.begin("CreateContainer", &create("quick", 1));
    assert_eq!(session.answered::<api::CreateContainerResponse>().0, quick);
    assert_eq!(session.answered::<api::CreateContainerResponse>().0, slow);
}

#[test]
fn a_runtime_that_says_nothing_is_left() {
    let kept = Kept::with(Duration::from_millis(200));
    let runtime = Runtime::at(&kept.socket);
    // It takes the connection and no more.
    let mut mute = runtime.accept();
    mute.called::<api::RegisterPluginRequest>("RegisterPlugin");
    assert!(mute.is_closed());
    kept.diary.says("disconnected: the runtime took too long to answer");
    // It takes the plugin's name, and does not configure it.
    let mut half = runtime.accept();
    half.register();
    assert!(half.is_closed());
    kept.diary.says("disconnected: the runtime took too long to configure the plugin");
    // It refuses.
    let mut refusing = runtime.accept();
    let (stream, _) = refusing.called::<api::RegisterPluginRequest>("RegisterPlugin");
    refusing.refuse(stream, 7, "not you");
    assert!(refusing.is_closed());
    kept.diary.says("disconnected: the runtime refuses the plugin: not you");
    runtime.take_in().0.call::<api::Empty>("Shutdown", &api::Empty {}).expect("taken");
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let kept = Kept::new();
    let runtime = Runtime::at(&kept.socket);
    let frame = |connection: u32, length: u32, bytes: &[u8]| {
        [&connection.to_be_bytes()[..], &length.to_be_bytes(), bytes].concat()
    };
    let too_long = [&(5_u32 << 20).to_be_bytes()[..], &[0, 0, 0, 1, 1, 0]].concat();
    for garbage in [
        frame(1, u32::MAX, &[]),
        frame(1, (4 << 20) + 11, &[]),
        frame(1, 10, &too_long),
        framed(2, 1, 2, &[0xff; 7]),
        vec![0xff; 4096],
    ] {
        let (mut session, _) = runtime.take_in();
        // The plugin may close before all of it is written.
        let _ = session.stream.write_all(&garbage);
        assert!(session.is_closed(), "{garbage:?}");
    }
    // What concerns nobody is passed over: other connections, other kinds, answers to no question, nothing at all.
    let (mut session, _) = runtime.take_in();
    for odd in [
        frame(77, 3, b"abc"),
        frame(1, 0, &[]),
        framed(1, 1, 3, b"data"),
        framed(1, 1, 0, b""),
        framed(2, 4711, 2, b""),
        framed(2, 1, 1, b""),
    ] {
        session.stream.write_all(&odd).expect("the plugin reads");
    }
    session.call::<api::CreateContainerResponse>("CreateContainer", &create("a", 1)).expect("adjusted");
    // Half a frame, and then the end.
    session.stream.write_all(&frame(1, 100, b"half")).expect("the plugin reads");
    drop(session);
    runtime.take_in().0.call::<api::Empty>("Shutdown", &api::Empty {}).expect("taken");
}
