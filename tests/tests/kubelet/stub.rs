//! A stub of the kubelet: it takes device plugins in, says what it has given to whom, and calls plugins and drivers back.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gpuquota_promises::{Machine, Scratch, artifact};
use kubelet_plugin::Status;
use kubelet_plugin::api::device_plugin::{Empty, RegisterRequest};
use kubelet_plugin::api::pod_resources::{
    ContainerDevices, ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use kubelet_plugin::client::{call, connect_as};
use kubelet_plugin::server::{Answer, Call, Service, serve, unary, unknown};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};

/// Asks until it is as wished for, at most ten seconds.
pub fn eventually<T>(mut look: impl FnMut() -> Option<T>, what: &str) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Calls a method of a plugin once, over a connection of its own.
pub fn ask<Q, A>(socket: &Path, method: &'static str, question: Q) -> Result<A, String>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    ask_as(socket, "localhost", method, question)
}

/// The same, with the authority that the kubelet sends.
pub fn ask_as<Q, A>(socket: &Path, authority: &str, method: &'static str, question: Q) -> Result<A, String>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    runtime().block_on(async {
        let mut client = connect_as(socket, authority).await.map_err(|error| error.to_string())?;
        call(&mut client, method, question).await.map_err(|error| error.to_string())
    })
}

/// What the kubelet knows.
#[derive(Default)]
struct Known {
    registered: Vec<RegisterRequest>,
    pods: Vec<PodResources>,
    /// How long it takes to answer.
    delay: Duration,
    /// Why it takes nobody in.
    refusal: Option<&'static str>,
}

struct Methods(Arc<Mutex<Known>>);

impl Service for Methods {
    async fn answer(&self, call: Call) -> Answer {
        let delay = self.0.lock().expect("no panic").delay;
        tokio::time::sleep(delay).await;
        match call.uri().path() {
            "/v1beta1.Registration/Register" => {
                unary(call, async |request: RegisterRequest| {
                    let mut known = self.0.lock().expect("no panic");
                    match known.refusal {
                        Some(why) => Err(Status::unimplemented(why)),
                        None => {
                            known.registered.push(request);
                            Ok(Empty {})
                        }
                    }
                })
                .await
            }
            "/v1.PodResourcesLister/List" => {
                unary(call, async |_: ListPodResourcesRequest| {
                    let pod_resources = self.0.lock().expect("no panic").pods.clone();
                    Ok(ListPodResourcesResponse { pod_resources })
                })
                .await
            }
            _ => unknown(&call),
        }
    }
}

/// A kubelet, and its directory.
pub struct Kubelet {
    pub home: Scratch,
    known: Arc<Mutex<Known>>,
    serving: Option<mpsc::Sender<()>>,
}

impl Kubelet {
    pub fn new() -> Self {
        let home = Scratch::new();
        for name in ["device-plugins", "pod-resources", "plugins_registry"] {
            std::fs::create_dir(home.path().join(name)).expect("a directory");
        }
        let mut kubelet = Self { home, known: Arc::default(), serving: None };
        kubelet.start();
        kubelet
    }

    pub fn plugins(&self) -> PathBuf {
        self.home.path().join("device-plugins")
    }

    /// Listens. As the kubelet does, it empties the directory of device plugins first.
    fn start(&mut self) {
        for entry in std::fs::read_dir(self.plugins()).expect("a directory") {
            std::fs::remove_file(entry.expect("an entry").path()).expect("removed");
        }
        let sockets =
            ["device-plugins", "pod-resources"].map(|name| self.home.path().join(name).join("kubelet.sock"));
        let (stop, stopped) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let known = Arc::clone(&self.known);
        thread::spawn(move || {
            runtime().block_on(async {
                let [plugins, pods] = sockets.map(|path| {
                    let _ = std::fs::remove_file(&path);
                    UnixListener::bind(path).expect("a socket")
                });
                ready.send(()).expect("somebody waits");
                let methods = Arc::new(Methods(known));
                let over = async {
                    while stopped.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                tokio::select! {
                    () = over => {}
                    never = serve(&plugins, Arc::clone(&methods)) => match never {},
                    never = serve(&pods, methods) => match never {},
                }
            });
        });
        is_ready.recv().expect("it listens");
        self.serving = Some(stop);
    }

    /// Is started anew.
    pub fn restart(&mut self) {
        self.serving = None;
        self.known.lock().expect("no panic").registered.clear();
        self.start();
    }

    /// How long it takes to answer from now on.
    pub fn delay(&self, delay: Duration) {
        self.known.lock().expect("no panic").delay = delay;
    }

    /// Takes nobody in from now on, or everybody again.
    pub fn refuse(&self, refusal: Option<&'static str>) {
        self.known.lock().expect("no panic").refusal = refusal;
    }

    /// The socket of a resource's plugin, once it has registered.
    pub fn registered(&self, resource: &str) -> PathBuf {
        let found = || {
            let known = self.known.lock().expect("no panic");
            known.registered.iter().rev().find(|request| request.resource_name == resource).cloned()
        };
        let request = eventually(found, resource);
        assert_eq!(request.version, "v1beta1");
        let options = request.options.expect("options");
        assert!(options.pre_start_required && options.get_preferred_allocation_available);
        self.plugins().join(request.endpoint)
    }

    /// Gives a container these devices.
    pub fn give(&self, pod: &str, devices: &[(&str, &[String])]) {
        let of = |(resource, ids): &(&str, &[String])| ContainerDevices {
            resource_name: (*resource).to_owned(),
            device_ids: ids.to_vec(),
        };
        let devices = devices.iter().map(of).collect();
        let containers = vec![ContainerResources { name: "main".to_owned(), devices }];
        let pod = PodResources { name: pod.to_owned(), namespace: "team".to_owned(), containers };
        self.known.lock().expect("no panic").pods.push(pod);
    }
}

/// A running command of gpuquota's, on a machine, and what it has said.
pub struct Running {
    pub child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Running {
    pub fn start(machine: &Machine, arguments: &[&str]) -> Self {
        let mut command = machine.bare().command(artifact("gpuquota"), arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = Arc::clone(&said);
        thread::spawn(move || lines.for_each(|line| saying.lock().expect("no panic").push(line)));
        Self { child, said }
    }

    /// A line of its log with these words, once it comes.
    pub fn says(&self, words: &str) -> String {
        let find = || self.said.lock().expect("no panic").iter().find(|line| line.contains(words)).cloned();
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(line) = find() {
                return line;
            }
            let said = self.said.lock().expect("no panic").join("\n");
            assert!(Instant::now() < until, "{words:?} is not in\n{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many lines of its log have these words.
    pub fn lines(&self, words: &str) -> usize {
        self.said.lock().expect("no panic").iter().filter(|line| line.contains(words)).count()
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
