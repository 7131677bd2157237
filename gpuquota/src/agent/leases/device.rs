//! One device and the containers that share it.

use super::container::{ContainerDevice, Place, RENEWAL_NS, Statement, Words};
use gpuquota_quota::share::client::{Client, Demand};
use gpuquota_quota::share::lease::AGENT_TIMEOUT_NS;
use gpuquota_quota::share::scheduler::Scheduler;

/// What containers without a share and a request have of the device together at least, in percent.
const LEAST_REST: u32 = 10;
/// How often the agent looks while no container does anything.
pub const IDLE_LOOK_NS: u64 = 20_000_000;
const _: () = assert!(RENEWAL_NS + IDLE_LOOK_NS < AGENT_TIMEOUT_NS);

/// All that share one device.
pub struct SharedDevice {
    pub uuid: String,
    containers: Vec<ContainerDevice>,
    clients: Vec<Client>,
    scheduler: Scheduler,
    pub next_look_ns: u64,
}

impl SharedDevice {
    pub fn new(uuid: String) -> Self {
        Self {
            uuid,
            containers: Vec::new(),
            clients: Vec::new(),
            scheduler: Scheduler::default(),
            next_look_ns: 0,
        }
    }

    /// Adds a container; a region has a device once, whatever it says.
    pub fn add(&mut self, container: ContainerDevice, client: Client) {
        let inode = container.place.region.inode;
        if self.containers.iter().all(|other| other.place.region.inode != inode) {
            self.containers.push(container);
            self.clients.push(client);
        }
    }

    /// Where its containers say what they want.
    pub fn places(&self) -> Vec<Place> {
        self.containers.iter().map(|container| container.place.clone()).collect()
    }

    /// Whether it takes leases: several containers share it, one of them by a share; or one has it alone, and may have
    /// all of it.
    pub fn needs_leases(&self) -> bool {
        match self.containers.as_slice() {
            [alone] => alone.borrows,
            all => all.iter().any(|container| container.request.is_some()),
        }
    }

    /// Goes on with what was known before: leases of those that were there go on.
    pub fn inherit(&mut self, mut before: Self) {
        let found = std::mem::take(&mut self.containers).into_iter().zip(std::mem::take(&mut self.clients));
        let (mut stays, mut comes) = (vec![false; before.containers.len()], Vec::new());
        for (container, client) in found {
            match before.containers.iter().position(|old| old.place.is(&container.place)) {
                Some(at) => stays[at] = true,
                None => comes.push((container, client)),
            }
        }
        before.retain(|at, _| stays[at]);
        for (container, client) in comes {
            before.add(container, client);
        }
        *self = before;
    }

    /// Forgets containers.
    pub fn retain(&mut self, stays: impl Fn(usize, &ContainerDevice) -> bool) {
        let all = self.containers.drain(..).zip(self.clients.drain(..)).enumerate();
        let (kept, rest): (Vec<usize>, Vec<_>) =
            all.filter(|(at, (container, _))| stays(*at, container)).unzip();
        (self.containers, self.clients) = rest.into_iter().unzip();
        self.scheduler.keep(|old| kept.iter().position(|at| *at == old));
    }

    /// Takes in what the containers said; `None` of those whose files cannot be read, which it forgets. Answers what to write,
    /// and knows when to look again.
    pub fn look(&mut self, statements: Vec<Option<Statement>>, now: u64) -> Vec<Words> {
        self.retain(|at, _| statements.get(at).is_some_and(Option::is_some));
        let statements: Vec<Statement> = statements.into_iter().flatten().collect();
        let requests: u32 = statements.iter().filter_map(|statement| statement.request).sum();
        let others = statements.iter().filter(|statement| statement.request.is_none()).count().max(1) as u32;
        let rest = 100u32.saturating_sub(requests).max(LEAST_REST) / others;
        for (client, statement) in self.clients.iter_mut().zip(&statements) {
            client.see(Demand { weight: statement.request.unwrap_or(rest), ..statement.demand }, now);
        }
        self.next_look_ns = self.scheduler.look(&mut self.clients, now);
        if self.clients.len() <= 1 || self.clients.iter().all(|client| client.is_away(now)) {
            self.next_look_ns = now + IDLE_LOOK_NS;
        }
        let containers = self.containers.iter_mut().zip(&self.clients);
        containers.filter_map(|(container, client)| container.renew(client, now)).collect()
    }
}
